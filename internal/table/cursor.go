package table

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// A cursor is a pageStart as a client carries it: its parts, joined by "~", and a checksum over them and the
// partition of the list's pages, which binds it to organization, client and query. Whoever reads this code can
// make one: it holds nothing but a place in a list that the client may read, and no key of the table.

const cursorChecksum = 12 // bytes

func cursorOf(partition string, start pageStart) string {
	parts := fmt.Sprintf("%d~%s~%s~%s", start.offset, start.startDate, start.endDate, start.position)
	sum := sha256.Sum256([]byte(partition + "~" + parts))
	return base64.RawURLEncoding.EncodeToString(append([]byte(parts), sum[:cursorChecksum]...))
}

// readCursor returns Invalid where the cursor is not one of that list.
func readCursor(partition, cursor string) (start pageStart, err error) {
	foreign := metering.Errorf(metering.Invalid, "cursor is %s: it must be that of the Link header of the page before, "+
		"with the same key and the same parameters but for limit; without a cursor the list begins anew", metering.Quote(cursor))
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) < cursorChecksum {
		return start, foreign
	}
	parts := strings.SplitN(string(b[:len(b)-cursorChecksum]), "~", 4)
	if len(parts) < 4 {
		return start, foreign
	}
	offset, errOffset := strconv.Atoi(parts[0])
	first, errStart := metering.ParseDay(parts[1])
	last, errEnd := metering.ParseDay(parts[2])
	start = pageStart{offset, parts[3], first, last}
	if errOffset != nil || offset < 0 || offset > math.MaxInt32 || errStart != nil || errEnd != nil || !start.isInList() {
		return start, foreign
	}
	// To the byte: the decoder passes over line breaks, and a number has more than one spelling.
	if cursorOf(partition, start) != cursor {
		return start, foreign
	}
	return start, nil
}
