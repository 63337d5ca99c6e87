package table

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"maps"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

const (
	metricPrefix = "METRIC#"
	attrMetric   = "metric"
	attrName     = "_name" // the sort key of the name that the metric owns; absent if it is DELETED
)

func metricItemKey(id metering.MetricID) string { return metricPrefix + keyEscaper.Replace(string(id)) }

// metricNameKey is of the item that names the ACTIVE metric which has the name. It is hashed, since
// a name may be longer than a sort key.
func metricNameKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "METRICNAME#" + hex.EncodeToString(sum[:])
}

// Metrics returns all billable metrics of the organization, DELETED ones too, newest first, read
// consistently. It fails if one can't be read.
//
//	Query  as listCatalog, of METRIC#
func (t *Table) Metrics(ctx context.Context, org metering.OrgID) ([]metering.BillableMetric, error) {
	list, err := t.MetricList(ctx, org, "")
	if err != nil {
		return nil, err
	}
	metrics := make([]metering.BillableMetric, len(list))
	for i, json := range list {
		if metrics[i], err = wire.DecodeStoredMetric(json); err != nil {
			return nil, storageError("read a billable metric", err)
		}
	}
	return metrics, nil
}

// MetricList returns the JSON of the organization's metrics of that status, or of all if it is
// empty: newest first, ties by id, descending.
//
//	Query  as listCatalog, of METRIC#
func (t *Table) MetricList(ctx context.Context, org metering.OrgID, status metering.MetricStatus) ([][]byte, error) {
	return t.listCatalog(ctx, org, metricPrefix, attrMetric, map[string]string{"status": string(status)}, "", math.MaxInt)
}

// Metric returns the metric as it is stored, read consistently. It returns NotFound if it does not
// exist.
//
//	GetItem  PK = ORG#<org>, SK = METRIC#<id>   1 round trip, 1 read unit per 4 KB
func (t *Table) Metric(ctx context.Context, org metering.OrgID, id metering.MetricID) (metering.Stored[metering.BillableMetric], error) {
	item, err := t.catalogItem(ctx, org, metricItemKey(id))
	if err == nil && item == nil {
		err = noSuchMetric(id)
	}
	if err != nil {
		return metering.Stored[metering.BillableMetric]{}, err
	}
	stored := readMetric(item)
	return stored, stored.Err
}

func noSuchMetric(id metering.MetricID) error {
	return metering.Errorf(metering.NotFound, "there is no billable metric %s", metering.Quote(id))
}

func readMetric(item map[string]types.AttributeValue) metering.Stored[metering.BillableMetric] {
	return readCatalog(item, attrMetric, wire.DecodeStoredMetric, nil)
}

// AddMetric stores a new metric and returns its JSON. It returns Conflict if an ACTIVE metric of
// the organization has the name, or if the id exists.
//
//	TransactWriteItems  the metric and its name,   1 round trip, 2 write units per KB and item
//	                    neither of which exists
//
// The SDK marks the transaction, so DynamoDB recognizes a retry whose first response was lost.
func (t *Table) AddMetric(ctx context.Context, m *metering.BillableMetric) ([]byte, error) {
	w, json, err := t.metricWrite(nil, m)
	if err != nil {
		return nil, err
	}
	w.exists = metering.Errorf(metering.Conflict, "the billable metric %s exists", metering.Quote(m.ID))
	if err := t.addCatalog(ctx, "the billable metric", w); err != nil {
		return nil, nameTaken(err, m.Name)
	}
	return json, nil
}

// ImportMetric stores a metric that does not exist yet, unchanged, with its name if it is ACTIVE.
// It reports false if one with its id exists, which it does not change. It returns Conflict if
// another ACTIVE metric has the name, and Invalid if it is too large. After Unavailable a call with
// the same operation reports true for what an earlier one has stored.
//
//	TransactWriteItems  as AddMetric; a PutItem if the metric is DELETED
func (t *Table) ImportMetric(ctx context.Context, operation Operation, m *metering.BillableMetric) (stored bool, err error) {
	w, _, err := t.metricWrite(nil, m)
	if err != nil {
		return false, err
	}
	stored, err = t.importCatalog(ctx, operation, "the billable metric", w)
	return stored, nameTaken(err, m.Name)
}

// ExportMetrics yields the JSON of all billable metrics of the organization, DELETED ones too, as
// exportCatalog does.
func (t *Table) ExportMetrics(ctx context.Context, org metering.OrgID) iter.Seq2[[]byte, error] {
	return exportCatalog(ctx, t, org, metricPrefix, readMetric)
}

// ChangeMetric applies the patch, stores the metric and returns its JSON. If the patch changes
// nothing, nothing is written and written is false. It returns NotFound, Conflict if another ACTIVE
// metric of the organization has the name, or an error of the patch as it is.
//
//	GetItem             as Metric
//	PutItem             the same, if unchanged   1 round trip, 1 write unit per KB
//
// If the name or the status changes, the second request is a TransactWriteItems of that put and of
// the items of the names.
func (t *Table) ChangeMetric(ctx context.Context, org metering.OrgID, id metering.MetricID, now time.Time, patch metering.MetricPatch) (json []byte, written bool, err error) {
	name := ""
	written, err = t.changeCatalog(ctx, org, metricItemKey(id), "the billable metric", func(read map[string]types.AttributeValue) (catalogWrite, error) {
		if read == nil {
			return catalogWrite{}, noSuchMetric(id)
		}
		stored := readMetric(read)
		if stored.Err != nil {
			return catalogWrite{}, stored.Err
		}
		m, err := patch.Apply(stored.Value)
		if err != nil {
			return catalogWrite{}, err
		}
		if name, json = m.Name, wire.AppendMetric(nil, &m); isStored(read, attrMetric, json) {
			return catalogWrite{}, nil
		}
		m.LastUpdateTime = now.UTC().Truncate(time.Millisecond)
		w, after, err := t.metricWrite(read, &m)
		json = after
		return w, err
	})
	return json, written, nameTaken(err, name)
}

// metricWrite is the write of a metric in place of what was read, which is nil for a new one.
func (t *Table) metricWrite(read map[string]types.AttributeValue, m *metering.BillableMetric) (w catalogWrite, json []byte, err error) {
	json = wire.AppendMetric(nil, m)
	if err := checkSize("the billable metric", json); err != nil {
		return catalogWrite{}, nil, err
	}
	item := maps.Clone(read) // with what a newer version has stored beside it
	if item == nil {
		item = itemKey(orgKey(m.OrganizationID), metricItemKey(m.ID))
	}
	item[attrMetric] = text(string(json))
	item["id"], item["status"], item["creationTime"] = text(m.ID), text(m.Status), text(metering.FormatTime(m.CreationTime))
	owned, _ := read[attrName].(*types.AttributeValueMemberS)
	wanted := ""
	if m.Status == metering.MetricActive {
		wanted = metricNameKey(m.Name)
	}
	if owned != nil && owned.Value != wanted {
		delete(item, attrName)
		w.other = append(w.other, t.release(m.OrganizationID, owned.Value, string(m.ID)))
	}
	if wanted != "" && (owned == nil || owned.Value != wanted) {
		item[attrName] = text(wanted)
		w.other = append(w.other, t.take(m.OrganizationID, wanted, string(m.ID)))
	}
	w.item = item
	return w, json, nil
}

// nameTaken is the error of a write that could not take the name.
func nameTaken(err error, name string) error {
	failed, ok := errors.AsType[*otherConditionError](err)
	if !ok {
		return err
	}
	if failed.found == nil { // what release does not delete belongs to another
		return storageError("release the name of a billable metric", err)
	}
	return metering.Errorf(metering.Conflict, "the billable metric %s has the name %s and is %s: the name of an %s metric must be unique in the organization",
		metering.Quote(ownerIn(failed.found)), metering.Quote(name), metering.MetricActive, metering.MetricActive)
}
