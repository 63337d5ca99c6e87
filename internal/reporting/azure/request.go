package azure

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// maxEvents is how many events a request may have. Source: "Metered billing batch usage event".
const maxEvents = 25

var limits = reporting.Limits{Partner: "AZURE", Records: maxEvents, Check: check, Identity: identity}

type batch struct {
	Request []event `json:"request"`
}

type event struct {
	ResourceID         string         `json:"resourceId,omitzero"`
	ResourceURI        string         `json:"resourceUri,omitzero"`
	Quantity           jsontext.Value `json:"quantity"`
	Dimension          string         `json:"dimension"`
	EffectiveStartTime string         `json:"effectiveStartTime"`
	PlanID             string         `json:"planId"`
}

// Body returns the request for records. The same records give the same bytes. The quantity is
// written as the decimal that it is; check has made sure that a double holds it.
func Body(records []reporting.Record) []byte {
	b := batch{Request: make([]event, 0, len(records))}
	for i := range records {
		r := &records[i]
		b.Request = append(b.Request, event{
			ResourceID: r.IDs.ResourceID, ResourceURI: r.IDs.ResourceURI, Quantity: jsontext.Value(r.Quantity.String()), Dimension: r.Dimension,
			EffectiveStartTime: metering.FormatSentTime(r.Start), PlanID: r.IDs.PlanID,
		})
	}
	body, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings that check has seen
	}
	return body
}

// check returns why Azure could not hold the record. Azure stores a quantity as a double.
func check(r *reporting.Record) (metering.ProblemCode, string) {
	quantity := r.Quantity.String()
	if double, err := strconv.ParseFloat(quantity, 64); err != nil || strconv.FormatFloat(double, 'f', -1, 64) != quantity {
		return metering.ProblemQuantityPrecision, "the quantity is " + quantity + ": Azure holds 15 significant digits"
	}
	if r.IDs.ResourceID != "" && r.IDs.ResourceURI != "" {
		return metering.ProblemEntitlementWithoutIdentifiers, "the record has resourceID and resourceURI: it must have one of them"
	}
	return "", ""
}

// identity is how Azure finds duplicates: resource, dimension and hour. The plan is not part of it.
func identity(r *reporting.Record) string {
	return fmt.Sprintf("%q", []string{resource(r), r.Dimension, r.Hour().Format(time.RFC3339)})
}

func resource(r *reporting.Record) string {
	return strings.ToLower(r.IDs.ResourceID + r.IDs.ResourceURI)
}
