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

// A cursor is a checkpoint that the client holds: its parts, joined by "~", and a checksum. The
// checksum covers them and the partition of the list's checkpoints, which binds the cursor to
// organization, client and query. The checksum has no secret: a forged cursor is only a position in
// a list that the client may read, and no key of the table.

const cursorChecksum = 12 // bytes

func cursorOf(partition string, c checkpoint) string {
	parts := fmt.Sprintf("%d~%s~%s~%s", c.offset, c.startDate, c.endDate, c.position)
	sum := sha256.Sum256([]byte(partition + "~" + parts))
	return base64.RawURLEncoding.EncodeToString(append([]byte(parts), sum[:cursorChecksum]...))
}

// readCursor returns Invalid if the cursor is not one of that list.
func readCursor(partition, cursor string) (c checkpoint, err error) {
	foreign := metering.Errorf(metering.Invalid, "cursor is %s: it must be that of the Link header of the page before, "+
		"with the same key and the same parameters but for limit; without a cursor the list begins anew", metering.Quote(cursor))
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) < cursorChecksum {
		return c, foreign
	}
	parts := strings.SplitN(string(b[:len(b)-cursorChecksum]), "~", 4)
	if len(parts) < 4 {
		return c, foreign
	}
	offset, errOffset := strconv.Atoi(parts[0])
	first, errStart := metering.ParseDay(parts[1])
	last, errEnd := metering.ParseDay(parts[2])
	c = checkpoint{offset, parts[3], first, last}
	if errOffset != nil || offset < 0 || offset > math.MaxInt32 || errStart != nil || errEnd != nil || !c.isInList() {
		return c, foreign
	}
	// Compare every byte: the decoder ignores line breaks, and a number has more than one spelling.
	if cursorOf(partition, c) != cursor {
		return c, foreign
	}
	return c, nil
}
