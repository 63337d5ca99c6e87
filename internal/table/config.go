package table

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// Config is the organization's current config: its newest version, read consistently.
//
//	Query  PK = ORG#<org>, begins_with(SK, CONFIG#), backwards, 1 item   1 round trip, 1 read unit per 4 KB
func (t *Table) Config(ctx context.Context, org string) (metering.ConfigVersion, error) {
	out, err := t.client.Query(ctx, &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :config)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": text(orgKey(org)), ":config": text(configPrefix),
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
		return metering.ConfigVersion{}, nil
	}
	current, err := itemConfig(out.Items[0])
	if err != nil {
		return metering.ConfigVersion{}, &metering.Error{
			Code: metering.Internal, Message: "internal error", Cause: fmt.Errorf("the stored config of %q: %w", org, err),
		}
	}
	return current, nil
}

func itemConfig(item map[string]types.AttributeValue) (metering.ConfigVersion, error) {
	r := itemReader{item: item}
	body, digits := r.text("config"), strings.TrimPrefix(r.text(attrSK), configPrefix)
	if r.err != nil {
		return metering.ConfigVersion{}, r.err
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return metering.ConfigVersion{}, err
	}
	patch, err := apijson.DecodeConfigPatch([]byte(body))
	if err != nil {
		return metering.ConfigVersion{}, err
	}
	config, err := patch.Merge(metering.Config{})
	return metering.ConfigVersion{Config: config, Version: version}, err
}

// maxConfigBytes keeps the item, with its keys and its other attributes, under DynamoDB's 400 KB.
const maxConfigBytes = 400*1024 - 1024

// ChangeConfig makes what change returns for the current config the next version. Where another
// version was written meanwhile it asks change again, with the newer one, until it succeeds or the
// context ends: then it returns Unavailable and nothing was written. What change fails with comes
// back as it is. A change that changes nothing writes nothing and returns the current version.
//
//	Query    as Config
//	PutItem  PK = ORG#<org>, SK = CONFIG#<n+1>, attribute_not_exists(PK)   1 round trip, 1 write unit per KB
//
// Versions are never overwritten. A retry whose first answer was lost finds its own operation id.
func (t *Table) ChangeConfig(ctx context.Context, org string, now time.Time, change func(current metering.ConfigVersion) (metering.Config, error)) (metering.ConfigVersion, error) {
	for try := 0; ; try++ {
		current, err := t.Config(ctx, org)
		if err != nil {
			return metering.ConfigVersion{}, err
		}
		config, err := change(current)
		if err != nil {
			return metering.ConfigVersion{}, err
		}
		body := apijson.AppendConfig(nil, config)
		if bytes.Equal(body, apijson.AppendConfig(nil, current.Config)) {
			return current, nil
		}
		if len(body) > maxConfigBytes {
			return metering.ConfigVersion{}, metering.Errorf(metering.Invalid,
				"the config would have %d bytes: it must have at most %d", len(body), maxConfigBytes)
		}
		next := metering.ConfigVersion{Config: config, Version: current.Version + 1}
		written, err := t.putConfig(ctx, org, next.Version, body, now)
		if err != nil {
			return metering.ConfigVersion{}, err
		}
		if written {
			return next, nil
		}
		if err := pause(ctx, try); err != nil {
			return metering.ConfigVersion{}, &metering.Error{
				Code: metering.Unavailable, Message: "the config is being changed by too many at once: try again",
				Cause: err, RetryAfter: time.Second,
			}
		}
	}
}

// putConfig reports false where that version is there already.
func (t *Table) putConfig(ctx context.Context, org string, version int, body []byte, now time.Time) (bool, error) {
	item := itemKey(orgKey(org), configKey(version))
	item["config"] = text(string(body))
	item["creationTime"] = text(metering.FormatTime(now))
	written, err := t.putNew(ctx, NewOperation(), item)
	if err != nil {
		return false, storageError("write the config", err)
	}
	return written, nil
}

// pause waits before another try: full jitter up to 20 ms, doubling to 640.
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(rand.N(20 * time.Millisecond << min(try, 5)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
