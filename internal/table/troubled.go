package table

import (
	"context"
	"strconv"
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
	return map[string]types.AttributeValue{
		attrWork: text(prefix + workShard(h.Organization, h.Entitlement)),
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
	for e, err := range t.workOf(ctx, partition, "#due >= :from", map[string]string{":from": from}) {
		if err != nil {
			return err
		}
		if p, ok := placeOf(e.pk, e.sk); ok {
			if err := take(p); err != nil {
				return err
			}
		}
	}
	return nil
}
