package gcp

import (
	"crypto/sha1"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

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
		OperationID: OperationID(r), OperationName: "Hourly usage report", ConsumerID: r.IDs.UsageReportingID,
		StartTime: r.Start.UTC().Format(time.RFC3339Nano), EndTime: r.End.UTC().Format(time.RFC3339Nano),
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

// namespace is the UUID in which operation ids are hashed. It must never change: an operation that
// is sent again would be billed again.
var namespace = [16]byte{0x6f, 0x2c, 0x91, 0x0e, 0x3b, 0x57, 0x4d, 0x84, 0x9a, 0x1d, 0xc4, 0x70, 0x5e, 0xb8, 0x26, 0xf3}

// OperationID is a UUID of version 5 (RFC 9562, 5.5), of organization, entitlement, hour and
// dimension. Nothing in it is random or counted: by it Google finds that an operation is sent
// again. No part holds a NUL.
func OperationID(r *reporting.Record) string {
	name := strings.Join([]string{"operation", string(r.Organization), string(r.Entitlement), metering.FormatTime(r.Hour()), r.Dimension}, "\x00")
	sum := sha1.Sum(append(namespace[:], name...))
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
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
