package table

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// The partitions of byWork of settled hours that need a person. No worker reads them.
const (
	heldPrefix     = "HELD#"     // a record is CONFLICT or UNKNOWN
	rejectedPrefix = "REJECTED#" // a record is REJECTED, and none is held
)

// troubledAttributes are the keys of a settled hour in byWork; nil if all of it is ACCEPTED.
func troubledAttributes(h *reports.Hour) map[string]types.AttributeValue {
	prefix := ""
	for i := range h.Sealed.Records {
		switch h.Sealed.Records[i].Outcome.Kind {
		case reports.Conflict, reports.Unknown:
			prefix = heldPrefix
		case reports.Rejected:
			if prefix == "" {
				prefix = rejectedPrefix
			}
		}
	}
	if prefix == "" {
		return nil
	}
	_, shard, _ := strings.Cut(workKey(h.Organization, h.Entitlement), "#")
	return map[string]types.AttributeValue{
		attrWork: text(prefix + shard),
		attrDue:  text(dueKey(h.Start, h.Organization, h.Entitlement, "")),
	}
}

// EachTroubled calls take for each settled hour that has a record which is CONFLICT or UNKNOWN, and
// for each from that hour on which has one that is REJECTED. The index lags.
//
//	Query  byWork, _work = HELD#<0 to 15>,   32 round trips, and more by the number of hours
//	       REJECTED#<0 to 15>
func (t *Table) EachTroubled(ctx context.Context, rejectedFrom time.Time, take func(reports.Place) error) error {
	for prefix, from := range map[string]string{heldPrefix: "0", rejectedPrefix: hourText(rejectedFrom)} {
		for shard := range workShards {
			if err := t.eachTroubled(ctx, prefix+strconv.Itoa(shard), from, take); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Table) eachTroubled(ctx context.Context, partition, from string, take func(reports.Place) error) error {
	var next map[string]types.AttributeValue
	for {
		entries, more, err := t.workPage(ctx, partition, "#due >= :from", map[string]string{":from": from}, 0, next)
		if err != nil {
			return err
		}
		for i := range entries {
			if p, ok := placeOf(entries[i].pk, entries[i].sk); ok {
				if err := take(p); err != nil {
					return err
				}
			}
		}
		if next = more; next == nil {
			return nil
		}
	}
}
