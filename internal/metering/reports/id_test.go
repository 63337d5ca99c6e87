package reports

import (
	"regexp"
	"testing"
	"time"
)

// An id that changed would make the marketplace bill a resend. Python's uuid.uuid5 made these.
func TestIDs_NeverChange(t *testing.T) {
	hour := at("06-15 10:00")
	if got, want := ReportID("org1", "ent1", hour), "bc388efe-4bbf-54e0-9333-9973620e744e"; got != want {
		t.Errorf("report %s, want %s", got, want)
	}
	if got, want := OperationID("org1", "ent1", hour, "seats"), "b5d14fa9-5fee-55e7-a830-c4473781ae81"; got != want {
		t.Errorf("operation %s, want %s", got, want)
	}
}

func TestIDs_DifferByEachPart(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	hour := at("06-15 10:00")
	zone := time.FixedZone("", 2*60*60)
	ids := map[string]bool{}
	for _, id := range []string{
		ReportID("a", "b", hour), ReportID("ab", "", hour), ReportID("b", "a", hour), ReportID("a", "b", hour.Add(time.Hour)),
		OperationID("a", "b", hour, ""), OperationID("a", "b", hour, "c"), OperationID("a", "bc", hour, ""),
	} {
		if !form.MatchString(id) || ids[id] {
			t.Errorf("%s is no UUID of version 5, or is there twice", id)
		}
		ids[id] = true
	}
	if !ids[ReportID("a", "b", hour.In(zone))] {
		t.Error("the id depends on the time zone")
	}
}
