package metering

import "time"

// ListRequest asks for a page of an organization's groups, newest first, ties by id, descending by bytes.
type ListRequest struct {
	Filter GroupFilter

	// Client and Query are whose list it is and what was asked for, word for word but for what tells the
	// pages apart. Pages of one list know each other by them.
	Client, Query string

	Offset int    // how many groups are before the page
	Cursor string // GroupPage.NextCursor of the page before; instead of Offset
	Limit  int    // of groups in the page
	// MaxSize bounds the page's JSON in bytes, where each quote and each backslash counts two. A page holds one group
	// at least.
	MaxSize int

	Now time.Time
	// ReadFor is how long the list is read before the page ends with what was found.
	ReadFor time.Duration
}

// GroupPage is a page of an organization's groups.
type GroupPage struct {
	JSON  []byte // the groups as the API returns them, joined by commas
	Count int

	NextOffset int    // where more groups follow; else 0
	NextCursor string // where more groups follow; else empty

	// Kept waits until the place where the next page begins is stored, and fails with Unavailable where it
	// can't be. A page whose Kept was not called, or failed, must not be given to anyone: a next page that
	// has to count would count in a list that has changed.
	//
	// Where laterBy is not 0, a request that came so much later has stored another place, and this one was left
	// out for it: the next page will begin there.
	Kept func() (laterBy time.Duration, err error)
}
