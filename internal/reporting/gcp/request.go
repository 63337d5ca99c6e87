package gcp

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// maxBytes is how many bytes the operations of a request may have, less than Google's 1 MB for the
// rest of it. Source: Service Control v1, services.report.
const maxBytes = 1_000_000 - 100

var limits = reporting.Limits{Partner: "GCP", Bytes: maxBytes, Size: size, Check: checkHeld, Identity: OperationID}

// operation is an Operation of Service Control v1. userLabels are not sent: this stage has none,
// and check refuses them.
type operation struct {
	OperationID     string     `json:"operationId"`
	OperationName   string     `json:"operationName"`
	ConsumerID      string     `json:"consumerId"`
	StartTime       string     `json:"startTime"`
	EndTime         string     `json:"endTime"`
	MetricValueSets []valueSet `json:"metricValueSets"`
}

type valueSet struct {
	MetricName   string  `json:"metricName"`
	MetricValues []value `json:"metricValues"`
}

type value struct {
	Int64Value string `json:"int64Value"`
}

// Body returns the request for records of one service. The same records give the same bytes.
func Body(records []reporting.Record) []byte {
	report := struct {
		Operations []operation `json:"operations"`
	}{make([]operation, 0, len(records))}
	for i := range records {
		report.Operations = append(report.Operations, operationOf(&records[i]))
	}
	return encoded(report)
}

// checkBody returns the request that checks the record's consumer. Source: "Configuring usage
// reports": the same operation.
func checkBody(r *reporting.Record) []byte {
	return encoded(struct {
		Operation operation `json:"operation"`
	}{operationOf(r)})
}

func operationOf(r *reporting.Record) operation {
	return operation{
		OperationID: OperationID(r), OperationName: metering.GoogleOperationName, ConsumerID: r.IDs.UsageReportingID,
		StartTime: metering.FormatSentTime(r.Start), EndTime: metering.FormatSentTime(r.End),
		MetricValueSets: []valueSet{{r.IDs.ServiceName + "/" + r.Dimension, []value{{r.Quantity.String()}}}},
	}
}

func encoded(request any) []byte {
	body, err := json.Marshal(request)
	if err != nil {
		panic(err) // strings that reporting.Begin has seen
	}
	return body
}

// size is the operation with the comma behind it.
func size(r *reporting.Record) int { return len(encoded(operationOf(r))) + 1 }

// OperationID is the id by which Google recognizes the operation if it is sent again.
func OperationID(r *reporting.Record) string {
	return metering.OperationID(r.Organization, r.Entitlement, r.Hour(), r.Dimension)
}

// checkHeld returns why Google could not hold the record.
func checkHeld(r *reporting.Record) (metering.ProblemCode, string) {
	quantity := r.Quantity.String()
	if strings.Contains(quantity, ".") {
		return metering.ProblemQuantityPrecision, "the quantity is " + quantity + ": Google holds whole numbers"
	}
	if _, err := strconv.ParseInt(quantity, 10, 64); err != nil {
		return metering.ProblemQuantityRange, fmt.Sprintf("the quantity is %s: Google holds at most %d", quantity, int64(math.MaxInt64))
	}
	return "", ""
}
