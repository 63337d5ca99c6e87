package table

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

const (
	entitlementPrefix = "ENTITLEMENT#"
	attrJSON          = "entitlement"
	attrIdentity      = "_identity" // the identity that the entitlement owns; absent if it owns none
	attrOwner         = "owner"     // of an identity or a name: the id of the object that has it
)

func entitlementItemKey(id metering.EntitlementID) string {
	return entitlementPrefix + keyEscaper.Replace(string(id))
}

// identityItemKey is of the item that names the entitlement which owns these marketplace
// identifiers.
func identityItemKey(key string) string { return "IDENTITY#" + key }

// Entitlement returns the entitlement, DELETED or not, read consistently. It returns NotFound if it
// does not exist.
//
//	GetItem  PK = ORG#<org>, SK = ENTITLEMENT#<id>   1 round trip, 1 read unit per 4 KB
func (t *Table) Entitlement(ctx context.Context, org metering.OrgID, id metering.EntitlementID) (metering.Stored[metering.Entitlement], error) {
	item, err := t.catalogItem(ctx, org, entitlementItemKey(id))
	if err == nil && item == nil {
		err = noSuchEntitlement(id)
	}
	if err != nil {
		return metering.Stored[metering.Entitlement]{}, err
	}
	stored := readEntitlement(item)
	return stored, stored.Err
}

func noSuchEntitlement(id metering.EntitlementID) error {
	return metering.Errorf(metering.NotFound, "there is no entitlement %s", metering.Quote(id))
}

func readEntitlement(item map[string]types.AttributeValue) metering.Stored[metering.Entitlement] {
	return readCatalog(item, attrJSON, wire.DecodeStoredEntitlement, nil)
}

// PutEntitlement applies the change, stores the entitlement and returns it. If the change changes
// nothing, nothing is written and written is false. It returns Conflict if another entitlement of
// the organization owns the marketplace identifiers, and if the partner changes while groups are
// CREATED or REPORT_PENDING, which were converted for the partner before; it may miss groups of the
// last seconds. An error of the change is returned as it is.
//
//	GetItem  PK = ORG#<org>, SK = ENTITLEMENT#<id>   1 round trip, 1 read unit per 4 KB
//	PutItem  the same, if it is still as it was read   1 round trip, 1 write unit per KB
//
// If its marketplace identifiers differ from those that it owns, the second request is
//
//	TransactWriteItems  that put; a put of the new      1 round trip, 2 write units
//	                    identity, if it has no owner; a   per KB and item
//	                    delete of the old one, if
//	                    nothing was sent with it
//	2 Query             before, as wasSent
//
// and if the partner differs, a Query as groupOf comes before.
func (t *Table) PutEntitlement(ctx context.Context, change *metering.EntitlementChange) (after metering.Stored[metering.Entitlement], written bool, err error) {
	org, id := change.Entitlement.OrganizationID, change.Entitlement.ID
	written, err = t.changeCatalog(ctx, org, entitlementItemKey(id), "the entitlement", func(read map[string]types.AttributeValue) (catalogWrite, error) {
		stored := readEntitlement(read)
		e, err := change.Apply(&stored)
		if err != nil {
			return catalogWrite{}, err
		}
		after = metering.Stored[metering.Entitlement]{Version: stored.Version, JSON: wire.AppendEntitlement(nil, &e), Value: e}
		if partner := stored.Value.Partner; partner != "" && partner != e.Partner && stored.Value.Status != metering.EntitlementDeleted {
			if err := t.checkSettled(ctx, org, id, fmt.Sprintf("partner can't be %s instead of %s", e.Partner, partner)); err != nil {
				return catalogWrite{}, err
			}
		}
		owned, wanted := identityOf(read), e.IdentityKey()
		if isStored(read, attrJSON, after.JSON) && owned == wanted {
			return catalogWrite{}, nil
		}
		e.LastUpdateTime = change.Now
		after = metering.Stored[metering.Entitlement]{Version: versionOf(read) + 1, JSON: wire.AppendEntitlement(nil, &e), Value: e}
		if err := checkSize("the entitlement", after.JSON); err != nil {
			return catalogWrite{}, err
		}
		w := catalogWrite{item: entitlementItem(&after, wanted)}
		if wanted != "" && wanted != owned {
			w.other = append(w.other, t.take(org, identityItemKey(wanted), string(id)))
		}
		if owned != "" && wanted != owned {
			sent, err := t.wasSent(ctx, org, id)
			if err != nil {
				return catalogWrite{}, err
			}
			if !sent {
				w.other = append(w.other, t.release(org, identityItemKey(owned), string(id)))
			}
		}
		return w, nil
	})
	if failed, ok := errors.AsType[*otherConditionError](err); ok {
		return after, false, identityTaken(failed.found)
	}
	return after, written, err
}

func identityTaken(found map[string]types.AttributeValue) error {
	owner := ownerIn(found)
	if owner == "" {
		return metering.Errorf(metering.Conflict, "another entitlement has these marketplace identifiers: usage of one would be taken for a duplicate of the other")
	}
	return metering.Errorf(metering.Conflict,
		"the entitlement %s has these marketplace identifiers: usage of one would be taken for a duplicate of the other; change the identifiers of one of them", metering.Quote(owner))
}

// DeleteEntitlement marks the entitlement DELETED and returns it. An entitlement that is DELETED
// stays as it is. It returns NotFound, PreconditionFailed, or Conflict if the entitlement has
// groups that are CREATED or REPORT_PENDING; it may miss groups of the last seconds.
//
//	GetItem  as Entitlement
//	Query    as groupOf
//	2 Query  as wasSent, if it owns an identity
//	PutItem  as PutEntitlement
//
// If the identity is released, the last request is a TransactWriteItems of the put and the
// identity's delete.
func (t *Table) DeleteEntitlement(ctx context.Context, org metering.OrgID, id metering.EntitlementID, deletion metering.EntitlementDeletion) (after metering.Stored[metering.Entitlement], written bool, err error) {
	written, err = t.changeCatalog(ctx, org, entitlementItemKey(id), "the entitlement", func(read map[string]types.AttributeValue) (catalogWrite, error) {
		if read == nil {
			return catalogWrite{}, noSuchEntitlement(id)
		}
		after = readEntitlement(read)
		e, err := deletion.Apply(&after)
		if err != nil || after.Value.Status == metering.EntitlementDeleted {
			return catalogWrite{}, err
		}
		if err := t.checkSettled(ctx, org, id, "the entitlement can't be deleted"); err != nil {
			return catalogWrite{}, err
		}
		after = metering.Stored[metering.Entitlement]{Version: versionOf(read) + 1, JSON: wire.AppendEntitlement(nil, &e), Value: e}
		w := catalogWrite{}
		owned := identityOf(read)
		if owned != "" {
			sent, err := t.wasSent(ctx, org, id)
			if err != nil {
				return catalogWrite{}, err
			}
			if !sent {
				w.other = append(w.other, t.release(org, identityItemKey(owned), string(id)))
				owned = ""
			}
		}
		w.item = maps.Clone(read) // with what a newer version has stored beside it
		delete(w.item, attrIdentity)
		maps.Copy(w.item, entitlementItem(&after, owned))
		return w, nil
	})
	if failed, ok := errors.AsType[*otherConditionError](err); ok {
		err = storageError("delete the entitlement", failed)
	}
	return after, written, err
}

// checkSettled returns Conflict if the entitlement has groups that are CREATED or REPORT_PENDING.
// It may miss groups of the last seconds.
func (t *Table) checkSettled(ctx context.Context, org metering.OrgID, id metering.EntitlementID, refused string) error {
	unsettled, err := t.groupOf(ctx, org, id, metering.StatusCreated, metering.StatusReportPending)
	if err != nil || unsettled == nil {
		return err
	}
	r := itemReader{item: unsettled}
	return metering.Errorf(metering.Conflict,
		"%s: it has usage that is not settled: usage record group %s is %s; delete the groups that are CREATED, or wait until they are reported",
		refused, metering.Quote(r.text("id")), r.text("status"))
}

// entitlementItem is the item of an entitlement that owns the identity, which may be empty.
func entitlementItem(s *metering.Stored[metering.Entitlement], identity string) map[string]types.AttributeValue {
	e := &s.Value
	item := itemKey(orgKey(e.OrganizationID), entitlementItemKey(e.ID))
	item[attrJSON] = text(string(s.JSON))
	for name, value := range map[string]string{
		"id": string(e.ID), "partner": string(e.Partner), "buyerID": string(e.BuyerID), "productID": string(e.ProductID),
		"externalID": e.ExternalID, "status": string(e.Status), "creationTime": metering.FormatTime(e.CreationTime), attrIdentity: identity,
	} {
		if value != "" {
			item[name] = text(value)
		}
	}
	return item
}

func identityOf(item map[string]types.AttributeValue) string {
	identity, _ := item[attrIdentity].(*types.AttributeValueMemberS)
	if identity == nil {
		return ""
	}
	return identity.Value
}

// wasSent reports whether usage of the entitlement was, or may have been, sent to its marketplace:
// if an hour exists, or a group that is or was on its way there.
//
//	Query  PK = ORG#<org>#BILL#<id>, 1 item   1 round trip, 1 read unit
//	Query  as groupOf
func (t *Table) wasSent(ctx context.Context, org metering.OrgID, id metering.EntitlementID) (bool, error) {
	out, err := t.client.Query(ctx, &dynamodb.QueryInput{
		TableName:                 &t.name,
		KeyConditionExpression:    aws.String("PK = :bill AND begins_with(SK, :hour)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":bill": text(billKey(org, id)), ":hour": text(hourPrefix)},
		Limit:                     aws.Int32(1),
		ConsistentRead:            aws.Bool(true),
		Select:                    types.SelectCount,
		ReturnConsumedCapacity:    wantUnits(ctx),
	})
	if err != nil {
		return false, storageError("read the hours of an entitlement", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if out.Count > 0 {
		return true, nil
	}
	group, err := t.groupOf(ctx, org, id, metering.StatusCreated, metering.StatusReportPending, metering.StatusReported, metering.StatusReportFailed)
	return group != nil, err
}

// groupOf returns the id and status of the entitlement's newest group in one of the statuses, or
// nil if it has none.
//
//	Query  byEntitlement, backwards   1 round trip and 128 read units per 1 MB of its groups
func (t *Table) groupOf(ctx context.Context, org metering.OrgID, id metering.EntitlementID, statuses ...metering.Status) (map[string]types.AttributeValue, error) {
	query, _ := newGroupQuery(org, metering.GroupFilter{EntitlementID: id})
	in := make([]string, len(statuses))
	for i, status := range statuses {
		in[i] = query.value(text(string(status)))
	}
	query.filters = append(query.filters, query.name("status")+" IN ("+strings.Join(in, ", ")+")")
	input := query.input(ctx, t.name)
	input.ProjectionExpression = aws.String(query.name("id") + ", " + query.name("status"))
	for {
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return nil, storageError("read the groups of an entitlement", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		if len(page.Items) > 0 {
			return page.Items[0], nil
		}
		if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
			return nil, nil
		}
	}
}

// Entitlements returns the JSON of the organization's entitlements that match the filter and are
// not DELETED: newest first, ties by id, descending. It skips offset of them and returns at most
// limit.
//
//	Query  as listCatalog, of ENTITLEMENT#
func (t *Table) Entitlements(ctx context.Context, org metering.OrgID, filter metering.EntitlementFilter, offset, limit int) ([][]byte, error) {
	list, err := t.listCatalog(ctx, org, entitlementPrefix, attrJSON, map[string]string{
		"partner": string(filter.Partner), "productID": string(filter.ProductID), "buyerID": string(filter.BuyerID), "externalID": filter.ExternalID,
	}, string(metering.EntitlementDeleted), offset+limit)
	return list[min(offset, len(list)):], err
}

// ImportEntitlement stores an entitlement that does not exist yet, unchanged, and takes its
// marketplace identifiers. It reports false if one with its id exists, DELETED or not, which it
// does not change. It returns Conflict if another entitlement owns the identifiers, and Invalid if
// it is too large. After Unavailable a call with the same operation reports true for what an
// earlier one has stored. An entitlement that is DELETED takes no identifiers: PUT takes them when
// it revives it.
//
//	TransactWriteItems  the entitlement, which must not exist,   1 round trip, 2 write units per KB
//	                    and its identity                         and item
//	PutItem             the entitlement, if it has no identity   1 round trip, 1 write unit per KB
func (t *Table) ImportEntitlement(ctx context.Context, operation Operation, e *metering.Entitlement) (stored bool, err error) {
	s := metering.Stored[metering.Entitlement]{JSON: wire.AppendEntitlement(nil, e), Value: *e}
	if err := checkSize("the entitlement", s.JSON); err != nil {
		return false, err
	}
	identity := ""
	if e.Status != metering.EntitlementDeleted {
		identity = e.IdentityKey()
	}
	w := catalogWrite{item: entitlementItem(&s, identity)}
	if identity != "" {
		w.other = append(w.other, t.take(e.OrganizationID, identityItemKey(identity), string(e.ID)))
	}
	stored, err = t.importCatalog(ctx, operation, "the entitlement", w)
	if failed, ok := errors.AsType[*otherConditionError](err); ok {
		err = identityTaken(failed.found)
	}
	return stored, err
}

// ExportEntitlements yields the JSON of all entitlements of the organization, DELETED ones too, as
// exportCatalog does.
func (t *Table) ExportEntitlements(ctx context.Context, org metering.OrgID) iter.Seq2[[]byte, error] {
	return exportCatalog(ctx, t, org, entitlementPrefix, readEntitlement)
}
