package reports

import (
	_ "embed" // the zone of US Pacific
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// pacificZone is America/Los_Angeles of the IANA time zone database 2025c, as in Go's
// lib/time/zoneinfo.zip. A Lambda function's machine need not have one.
//
//go:embed America_Los_Angeles.tzif
var pacificZone []byte

var pacific = func() *time.Location {
	location, err := time.LoadLocationFromTZData("America/Los_Angeles", pacificZone)
	if err != nil {
		panic(err) // the file is part of the program
	}
	return location
}()

// monthAfter is when the marketplace's next month begins: in US Pacific at Google, else in UTC.
func monthAfter(partner metering.Partner, at time.Time) time.Time {
	location := time.UTC
	if partner == "GCP" {
		location = pacific
	}
	at = at.In(location)
	return time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, location).UTC()
}
