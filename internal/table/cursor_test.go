package table

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// genCheckpoint draws a checkpoint of a list, anywhere between the list's days.
func genCheckpoint() *rapid.Generator[checkpoint] {
	return rapid.Custom(func(t *rapid.T) checkpoint {
		id := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "~", "#", "%", " ", "-", "ü", "😀", "\uffff", "~~~", "2099-07-01"}), 1, 4).Draw(t, "parts"), "")
		}).Filter(func(id string) bool { _, err := metering.StoredGroupID(id); return err == nil }).Draw(t, "id")
		year := rapid.SampledFrom([]int{0, 1, 1969, 2024, 9999}).Draw(t, "year")
		created := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 365*24*3600*1000-1).Draw(t, "within it")) * time.Millisecond)
		day := metering.DayOf(created)
		return checkpoint{
			offset:    rapid.IntRange(0, math.MaxInt32).Draw(t, "offset"),
			position:  timeKey(created, metering.GroupID(id)),
			startDate: rapid.SampledFrom([]metering.Day{day, "0000-01-01"}).Draw(t, "start"),
			endDate:   rapid.SampledFrom([]metering.Day{day, "9999-12-31"}).Draw(t, "end"),
		}
	})
}

// For all checkpoints: the cursor is read as the same checkpoint, and only in the same list.
func TestCursor_LeadsToItsCheckpoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := genCheckpoint().Draw(t, "start")
		partitions := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string {
			return pageKey(metering.OrgID(part(t, "org")), fingerprint(part(t, "client"), part(t, "query")))
		}), 2, 2, rapid.ID).Draw(t, "partitions")
		cursor := cursorOf(partitions[0], start)
		if got, err := readCursor(partitions[0], cursor); err != nil || got != start {
			t.Fatalf("%+v, %v, want %+v", got, err, start)
		}
		wantForeign := func(partition, cursor string) {
			if got, err := readCursor(partition, cursor); metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "cursor") {
				t.Fatalf("%q: %+v, %v", cursor, got, err)
			}
		}
		wantForeign(partitions[1], cursor)
		at, other := rapid.IntRange(0, len(cursor)-1).Draw(t, "at"), string([]byte{rapid.Byte().Draw(t, "byte")})
		if other != cursor[at:at+1] {
			wantForeign(partitions[0], cursor[:at]+other+cursor[at+1:])
		}
		wantForeign(partitions[0], cursor[:at])
		wantForeign(partitions[0], cursor[:at]+other+cursor[at:])
		wantForeign(partitions[0], cursor+other)

		day := metering.Day(start.position[:len("2006-01-02")])
		for _, outside := range []checkpoint{
			{start.offset, start.position, day.AddDays(1), "9999-12-31"},
			{start.offset, start.position, "0000-01-01", day.AddDays(-1)},
			{start.offset, "", start.startDate, start.endDate},
			{-1, start.position, start.startDate, start.endDate},
			{math.MaxInt32 + 1, start.position, start.startDate, start.endDate},
		} {
			if day > "0000-01-01" && day < "9999-12-31" {
				wantForeign(partitions[0], cursorOf(partitions[0], outside))
			}
		}
	})
}

// For all clients and queries: only the same client with the same query has the same fingerprint.
func TestFingerprint_IsOfOneList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := [2]string{part(t, "client a"), part(t, "query a")}, [2]string{part(t, "client b"), part(t, "query b")}
		if (fingerprint(a[0], a[1]) == fingerprint(b[0], b[1])) != (a == b) {
			t.Fatalf("%q and %q", a, b)
		}
	})
}

var formOfCursor = regexp.MustCompile(`(?s)^(0|[1-9][0-9]{0,9})~([0-9]{4}-[0-9]{2}-[0-9]{2})~([0-9]{4}-[0-9]{2}-[0-9]{2})` +
	`~(([0-9]{4}-[0-9]{2}-[0-9]{2})T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)#(.*)$`)

// FuzzReadCursor looks for an accepted cursor that cursorOf does not make for a checkpoint of a
// list, and for a refused one that it does. It computes the list's checksum, which fuzzing can't
// find.
func FuzzReadCursor(f *testing.F) {
	const list = "ORG#o#PAGE#abc"
	place := checkpoint{7, "2024-07-29T15:51:28.071Z#g~#", "2024-07-01", "2024-07-30"}
	f.Add(list, cursorOf(list, place))
	f.Add(list, cursorOf("ORG#p#PAGE#abc", place))
	for _, parts := range []string{
		"", "~~~", "7~2024-07-01~2024-07-30~2024-07-29T15:51:28.071Z#g", "07~2024-07-01~2024-07-30~2024-07-29T15:51:28.071Z#g",
		"2147483648~0000-01-01~9999-12-31~9999-12-31T23:59:59.999Z#\U0001f600", "-1~2024-07-01~2024-07-30~2024-07-29T15:51:28.071Z#g",
		"0~2024-07-01~2024-07-30~2024-07-31T15:51:28.071Z#g", "0~2024-07-01~2024-07-30~2024-07-29T15:51:28.0710Z#g", "0~2024-07-30~2024-07-01~2024-07-29T15:51:28.071Z#g",
		"0~2024-07-01~2024-07-30~2024-07-29t15:51:28.071z#g", "0~2024-07-01~2024-07-30~2024-07-29T15:51:28.071Z#a/b", "0~2024-07-01~2024-07-30~",
	} {
		f.Add(list, parts)
	}
	f.Fuzz(func(t *testing.T, partition, text string) {
		sum := sha256.Sum256([]byte(partition + "~" + text))
		for _, cursor := range []string{text, base64.RawURLEncoding.EncodeToString(append([]byte(text), sum[:cursorChecksum]...))} {
			start, err := readCursor(partition, cursor)
			if cursor != text && (err == nil) != isPlace(text) {
				t.Fatalf("%q: %v, and that it is a place is %v", text, err, isPlace(text))
			}
			if err != nil {
				failure, ok := errors.AsType[*metering.Error](err)
				if !ok || failure.Code != metering.Invalid || !utf8.ValidString(failure.Message) {
					t.Fatalf("%q: %#v", cursor, err)
				}
				continue
			}
			if again := cursorOf(partition, start); again != cursor {
				t.Fatalf("%q is taken for %+v, whose cursor is %q", cursor, start, again)
			}
			if _, err := readCursor(partition+"x", cursor); err == nil {
				t.Fatalf("%q is taken in another list", cursor)
			}
		}
	})
}

// isPlace reports whether the parts of a cursor are a checkpoint of a list.
func isPlace(parts string) bool {
	part := formOfCursor.FindStringSubmatch(parts)
	if part == nil {
		return false
	}
	_, errOffset := strconv.ParseInt(part[1], 10, 32)
	_, errStart := time.Parse(time.DateOnly, part[2])
	_, errEnd := time.Parse(time.DateOnly, part[3])
	_, errTime := time.Parse("2006-01-02T15:04:05.000Z", part[4])
	id := part[6] // another version may allow it: any id whose keys DynamoDB can hold
	isID := id != "" && utf8.ValidString(id) && len(part[4]+"#"+id) <= 1024 && len("GROUP#"+id)+2*strings.Count(id, "%")+2*strings.Count(id, "#") <= 1024
	return errors.Join(errOffset, errStart, errEnd, errTime) == nil && isID && part[2] <= part[5] && part[5] <= part[3]
}
