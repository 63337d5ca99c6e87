package table

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Config is the organization's current config: its newest version, read consistently. A version
// that can't be read is returned with its Err, so that it can be replaced.
//
//	Query  PK = ORG#<org>, begins_with(SK, CONFIG#),   1 round trip, 1 read unit per 4 KB
//	       backwards, 1 item
func (t *Table) Config(ctx context.Context, org metering.OrgID) (metering.ConfigVersion, error) {
	out, err := t.client.Query(ctx, &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :org AND SK BETWEEN :first AND :last"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			// An item of another kind that begins with the prefix is no version.
			":org": text(orgKey(org)), ":first": text(configKey(0)), ":last": text(configKey(maxConfigVersion)),
		},
		ScanIndexForward:       aws.Bool(false),
		Limit:                  aws.Int32(1),
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return metering.ConfigVersion{}, storageError("read the config", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if len(out.Items) == 0 {
		none := metering.EmptyConfig()
		return metering.ConfigVersion{Config: none, Stored: wire.AppendConfig(nil, none)}, nil
	}
	return readConfig(org, out.Items[0])
}

// readConfig reads an item of a version. A version that can't be read has its Err.
func readConfig(org metering.OrgID, item map[string]types.AttributeValue) (metering.ConfigVersion, error) {
	r := itemReader{item: item}
	version, err := strconv.Atoi(strings.TrimPrefix(r.text(attrSK), configPrefix))
	if err != nil {
		return metering.ConfigVersion{}, storageError("read the version of the config", err)
	}
	aside := itemReader{item: item} // the config counts if what is stored beside it can't be read
	v := metering.ConfigVersion{Version: version, Stored: []byte(r.text("config")), Time: aside.time("creationTime"), KeyID: aside.text("keyID")}
	if err = r.err; err == nil {
		v.Config, err = wire.DecodeConfig(v.Stored)
	}
	if err != nil {
		v.Err = &metering.Error{
			Code: metering.Internal, Message: "internal error", Cause: fmt.Errorf("version %d of the config of %q: %w", version, org, err),
		}
	}
	return v, nil
}

// ConfigVersion returns a version of the config, read consistently. It returns NotFound if it does
// not exist.
//
//	GetItem  PK = ORG#<org>, SK = CONFIG#<n>   1 round trip, 1 read unit per 4 KB
func (t *Table) ConfigVersion(ctx context.Context, org metering.OrgID, version int) (metering.ConfigVersion, error) {
	none := metering.Errorf(metering.NotFound, "the config has no version %d", version)
	if version > maxConfigVersion {
		return metering.ConfigVersion{}, none
	}
	item, err := t.catalogItem(ctx, org, configKey(version))
	if err != nil {
		return metering.ConfigVersion{}, err
	}
	if item == nil {
		return metering.ConfigVersion{}, none
	}
	return readConfig(org, item)
}

// ConfigVersions returns the versions of the config, newest first, without the first offset of
// them: at most limit, and at least one, but then no more than size bytes of JSON. more reports
// that others follow.
//
//	Query  as Config, if there is an offset   1 round trip, 1 read unit per 4 KB
//	Query  PK = ORG#<org>, SK from CONFIG#1   1 round trip per 1 MB, 1 read unit per 4 KB
//	       to that, consistent, backwards
//
// Versions have no gaps, so the offset is a version.
func (t *Table) ConfigVersions(ctx context.Context, org metering.OrgID, offset, limit, size int) (page []metering.ConfigVersion, more bool, err error) {
	last := maxConfigVersion
	if offset > 0 {
		newest, err := t.Config(ctx, org)
		if err != nil || newest.Version <= offset {
			return nil, false, err
		}
		last = newest.Version - offset
	}
	query := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :org AND SK BETWEEN :first AND :last"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": text(orgKey(org)), ":first": text(configKey(0)), ":last": text(configKey(last)),
		},
		ScanIndexForward:       aws.Bool(false),
		Limit:                  aws.Int32(int32(limit) + 1), //nolint:gosec // limit is at most metering.MaxListLimit
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	}
	for {
		out, err := t.client.Query(ctx, query)
		if err != nil {
			return nil, false, storageError("read the versions of the config", err)
		}
		countRead(ctx, out.ConsumedCapacity)
		for _, item := range out.Items {
			v, err := readConfig(org, item)
			if err != nil {
				return nil, false, err
			}
			size -= len(v.Stored)
			if len(page) == limit || len(page) > 0 && size < 0 {
				return page, true, nil
			}
			page = append(page, v)
		}
		if query.ExclusiveStartKey = out.LastEvaluatedKey; query.ExclusiveStartKey == nil {
			return page, false, nil
		}
	}
}

// ChangeConfig applies the change to the config, stores the result as the next version and returns
// it. If the change changes nothing, nothing is written and written is false. If another version
// was written meanwhile, it applies the change again, to the newer one, until it succeeds or the
// context ends: then it returns Unavailable and nothing was written. An error of the change is
// returned as it is.
//
//	Query    as Config
//	PutItem  PK = ORG#<org>, SK = CONFIG#<n+1>,   1 round trip, 1 write unit per KB
//	         attribute_not_exists(PK)
//
// Versions are never overwritten. A retry whose first response was lost finds its own operation id.
func (t *Table) ChangeConfig(ctx context.Context, org metering.OrgID, now time.Time, change metering.ConfigChange) (after metering.ConfigVersion, written bool, err error) {
	for attempt := 0; ; attempt++ {
		current, err := t.Config(ctx, org)
		if err != nil {
			return metering.ConfigVersion{}, false, err
		}
		config, err := change.Apply(current)
		if err != nil {
			return metering.ConfigVersion{}, false, err
		}
		if current.Err == nil && config.Equal(current.Config) {
			return current, false, nil
		}
		next := metering.ConfigVersion{Version: current.Version + 1, Time: now, KeyID: change.KeyID, Stored: wire.AppendConfig(nil, config), Config: config}
		if len(next.Stored) > metering.MaxConfigStored {
			return metering.ConfigVersion{}, false, metering.Errorf(metering.Invalid,
				"the config would have %d bytes: it must have at most %d", len(next.Stored), metering.MaxConfigStored)
		}
		written, err := t.putConfig(ctx, org, next)
		if err != nil {
			return metering.ConfigVersion{}, false, err
		}
		if written {
			return next, true, nil
		}
		if err := pause(ctx, attempt); err != nil {
			return metering.ConfigVersion{}, false, contended("the config", err)
		}
	}
}

// putConfig reports false if that version exists already.
func (t *Table) putConfig(ctx context.Context, org metering.OrgID, v metering.ConfigVersion) (bool, error) {
	item := itemKey(orgKey(org), configKey(v.Version))
	item["config"] = text(string(v.Stored))
	item["creationTime"] = text(metering.FormatTime(v.Time))
	item["keyID"] = text(v.KeyID)
	written, err := t.putNew(ctx, NewOperation(), item)
	if err != nil {
		return false, storageError("write the config", err)
	}
	return written, nil
}

// pause waits before another attempt: full jitter up to 20 ms, doubling to 640.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(rand.N(20 * time.Millisecond << min(attempt, 5)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
