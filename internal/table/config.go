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
	r := itemReader{item: out.Items[0]}
	version, err := strconv.Atoi(strings.TrimPrefix(r.text(attrSK), configPrefix))
	if err != nil {
		return metering.ConfigVersion{}, storageError("read the version of the config", err)
	}
	current := metering.ConfigVersion{Version: version, Stored: []byte(r.text("config"))}
	if err = r.err; err == nil {
		current.Config, err = wire.DecodeConfig(current.Stored)
	}
	if err != nil {
		current.Err = &metering.Error{
			Code: metering.Internal, Message: "internal error", Cause: fmt.Errorf("version %d of the config of %q: %w", version, org, err),
		}
	}
	return current, nil
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
		next := metering.ConfigVersion{Version: current.Version + 1, Stored: wire.AppendConfig(nil, config), Config: config}
		if len(next.Stored) > metering.MaxConfigStored {
			return metering.ConfigVersion{}, false, metering.Errorf(metering.Invalid,
				"the config would have %d bytes: it must have at most %d", len(next.Stored), metering.MaxConfigStored)
		}
		written, err := t.putConfig(ctx, org, next, now)
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
func (t *Table) putConfig(ctx context.Context, org metering.OrgID, v metering.ConfigVersion, now time.Time) (bool, error) {
	item := itemKey(orgKey(org), configKey(v.Version))
	item["config"] = text(string(v.Stored))
	item["creationTime"] = text(metering.FormatTime(now))
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
