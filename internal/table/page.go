package table

import (
	"github.com/marketmeter/marketmeter/internal/table/listjson"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// page is a page of a list as it is read.
type page struct {
	json  []byte // the buffer of List's caller, then the groups
	begin int    // index of the first group in json
	limit int    // of groups
	size  sizeLimit
	count int
	last  []byte // the position of the last group that was added, in DynamoDB's response
	full  bool   // a group follows that does not fit
}

// add reports whether the group belongs to the page. Only add decides that a page is full: if it
// has limit groups, or would be larger than its size limit. A page has at least one group.
func (p *page) add(g listjson.Group) bool {
	p.full = p.count == p.limit || p.count > 0 && p.size.exceededBy(g.Page)
	if p.full {
		return false
	}
	p.count++
	p.last = g.Position
	return true
}

// sizeLimit is a limit on the size of a page in a JSON string, in which Lambda returns it:
// wire.Escapes.
type sizeLimit struct {
	max     int
	counted int // how many bytes of the page were counted
	escaped int // how many of those take two
}

// exceededBy reports whether the page is over the limit. It is called with a page that only grows.
// It counts the bytes that are escaped only if they can matter, and only in what was added since
// the last call.
func (s *sizeLimit) exceededBy(page []byte) bool {
	if 2*len(page) <= s.max {
		return false
	}
	added := page[s.counted:]
	s.escaped += wire.Escapes(added)
	s.counted = len(page)
	return len(page)+s.escaped > s.max
}
