package localdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"go.yaml.in/yaml/v3"
)

// CreateTable creates the table that the CloudFormation template defines, under the given name, and
// returns when it can be used. To an existing table of that name (created is false), indexes of the
// template that it lacks are added; nothing else of it is changed. It is an error if its keys or
// indexes are other than the template's, or if the template's table has a property that this
// package does not know: no property is ignored silently.
func CreateTable(ctx context.Context, client *dynamodb.Client, template []byte, name string) (created bool, err error) {
	want, err := readTable(template)
	if err != nil {
		return false, fmt.Errorf("the template's table: %w", err)
	}
	want.CreateTableInput.TableName = &name
	made, err := client.CreateTable(ctx, &want.CreateTableInput)
	var status types.TableStatus
	if _, exists := errors.AsType[*types.ResourceInUseException](err); exists {
		status, err = updateTable(ctx, client, want)
	} else if err == nil {
		created, status = true, made.TableDescription.TableStatus
	}
	if err != nil {
		return false, fmt.Errorf("the table %s: %w", name, err)
	}
	if status != types.TableStatusActive {
		err := dynamodb.NewTableExistsWaiter(client).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &name}, time.Minute)
		if err != nil {
			return created, fmt.Errorf("the table %s is %s and does not become ACTIVE: %w", name, status, err)
		}
	}
	if err := expireItems(ctx, client, name, want.TimeToLiveSpecification); err != nil {
		return created, fmt.Errorf("the expiry of items in table %s: %w", name, err)
	}
	return created, nil
}

// A definition is the Properties of an AWS::DynamoDB::Table. Its names are those of the CreateTable
// request. The fields here have other shapes there, or do not affect the items of a local table.
type definition struct {
	dynamodb.CreateTableInput
	TimeToLiveSpecification *types.TimeToLiveSpecification

	TableName                        any
	Tags                             any
	SSESpecification                 any
	DeletionProtectionEnabled        any
	PointInTimeRecoverySpecification any
	ContributorInsightsSpecification any
}

// readTable finds the one table of the template. CloudFormation's tags (!Ref, !Sub) are ignored and
// their text is read as it is, which is right if that text does not matter.
func readTable(template []byte) (definition, error) {
	var file struct {
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(template, &file); err != nil {
		return definition{}, err
	}
	var table definition
	found := 0
	for id, resource := range file.Resources {
		if resource.Type != "AWS::DynamoDB::Table" {
			continue
		}
		found++
		if err := decodeStrictly(&resource.Properties, &table); err != nil {
			return definition{}, fmt.Errorf("%s: %w", id, err)
		}
	}
	if found != 1 {
		return definition{}, fmt.Errorf("there are %d resources of type AWS::DynamoDB::Table; it must be one", found)
	}
	if table.BillingMode != types.BillingModePayPerRequest {
		return definition{}, fmt.Errorf("BillingMode is %q: it must be PAY_PER_REQUEST", table.BillingMode)
	}
	if len(table.LocalSecondaryIndexes) > 0 {
		return definition{}, errors.New("it has local secondary indexes, which are not understood here")
	}
	return table, nil
}

func decodeStrictly(properties *yaml.Node, table *definition) error {
	var plain any
	if err := properties.Decode(&plain); err != nil {
		return err
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(table)
}

// The time to add an index, and the pause before the table is looked at again.
const (
	indexTimeout = 3 * time.Minute
	indexPause   = 50 * time.Millisecond
)

// updateTable adds the indexes that the table lacks, one after the other, as DynamoDB requires, and
// returns when they can be used. A table that differs otherwise is an error.
func updateTable(ctx context.Context, client *dynamodb.Client, want definition) (types.TableStatus, error) {
	within, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	var refused error
	for {
		answer, err := client.DescribeTable(within, &dynamodb.DescribeTableInput{TableName: want.CreateTableInput.TableName})
		if err != nil {
			return "", errors.Join(refused, err)
		}
		lacks, err := lacking(answer.Table, want)
		if err != nil {
			return "", err
		}
		made := !slices.ContainsFunc(answer.Table.GlobalSecondaryIndexes, func(i types.GlobalSecondaryIndexDescription) bool {
			return i.IndexStatus != types.IndexStatusActive
		})
		if made && len(lacks) == 0 {
			return answer.Table.TableStatus, nil
		}
		if made && answer.Table.TableStatus == types.TableStatusActive {
			// If the response is lost, or another process adds it too, the next look shows it.
			_, refused = client.UpdateTable(within, &dynamodb.UpdateTableInput{
				TableName:            want.CreateTableInput.TableName,
				AttributeDefinitions: attributesOf(lacks[0].KeySchema, want.AttributeDefinitions),
				GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{
					IndexName: lacks[0].IndexName, KeySchema: lacks[0].KeySchema, Projection: lacks[0].Projection,
				}}},
			})
		}
		select {
		case <-time.After(indexPause):
		case <-within.Done():
			return "", errors.Join(refused, within.Err())
		}
	}
}

// attributesOf are the definitions of the attributes in keys.
func attributesOf(keys []types.KeySchemaElement, all []types.AttributeDefinition) (of []types.AttributeDefinition) {
	for _, a := range all {
		if slices.ContainsFunc(keys, func(key types.KeySchemaElement) bool { return *key.AttributeName == *a.AttributeName }) {
			of = append(of, a)
		}
	}
	return of
}

// lacking returns the indexes of the template that the table lacks. It is an error if the table has
// anything that the template does not have, or other keys.
func lacking(table *types.TableDescription, want definition) (indexes []types.GlobalSecondaryIndex, err error) {
	wanted := outline(want.KeySchema, want.AttributeDefinitions, want.GlobalSecondaryIndexes)
	has := outlineOf(table)
	if !slices.ContainsFunc(has, func(line string) bool { return !slices.Contains(wanted, line) }) {
		for _, index := range want.GlobalSecondaryIndexes {
			if line := outline(want.KeySchema, want.AttributeDefinitions, []types.GlobalSecondaryIndex{index}); !slices.Contains(has, line[0]) {
				indexes = append(indexes, index)
			}
		}
		return indexes, nil
	}
	return nil, fmt.Errorf("it exists, and is not the template's: it has %s; the template has %s. "+
		"Keep what it holds with `marketmeter export`, then delete it (the local one: the folder .local/dynamodb), "+
		"or set TABLE_NAME to another name", missing(has, wanted), missing(wanted, has))
}

// outline returns what must agree between a table and the template: a line for the table, one for
// each index.
func outline(keys []types.KeySchemaElement, attributes []types.AttributeDefinition, indexes []types.GlobalSecondaryIndex) []string {
	lines := []string{"keys " + keysText(keys, attributes)}
	for _, index := range indexes {
		lines = append(lines, fmt.Sprintf("index %s %s projecting %s", aws.ToString(index.IndexName),
			keysText(index.KeySchema, attributes), projectionText(index.Projection)))
	}
	slices.Sort(lines)
	return lines
}

func outlineOf(t *types.TableDescription) []string {
	var indexes []types.GlobalSecondaryIndex
	for _, index := range t.GlobalSecondaryIndexes {
		indexes = append(indexes, types.GlobalSecondaryIndex{
			IndexName: index.IndexName, KeySchema: index.KeySchema, Projection: index.Projection,
		})
	}
	return outline(t.KeySchema, t.AttributeDefinitions, indexes)
}

// keysText returns, for example, "(PK HASH S, SK RANGE S)".
func keysText(keys []types.KeySchemaElement, attributes []types.AttributeDefinition) string {
	var parts []string
	for _, key := range keys {
		part := aws.ToString(key.AttributeName) + " " + string(key.KeyType)
		for _, a := range attributes {
			if aws.ToString(a.AttributeName) == aws.ToString(key.AttributeName) {
				part += " " + string(a.AttributeType)
			}
		}
		parts = append(parts, part)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func projectionText(p *types.Projection) string {
	if p == nil {
		return "nothing"
	}
	parts := append([]string{string(p.ProjectionType)}, slices.Sorted(slices.Values(p.NonKeyAttributes))...)
	return strings.Join(parts, " ")
}

// missing returns the lines that the others lack, as text.
func missing(lines, others []string) string {
	var only []string
	for _, line := range lines {
		if !slices.Contains(others, line) {
			only = append(only, line)
		}
	}
	if len(only) == 0 {
		return "nothing else"
	}
	return strings.Join(only, ", ")
}

// expireItems turns the expiry of items on, unless it is on: DynamoDB refuses to do so twice.
func expireItems(ctx context.Context, client *dynamodb.Client, name string, want *types.TimeToLiveSpecification) error {
	if want == nil || !aws.ToBool(want.Enabled) {
		return nil
	}
	if on, err := expires(ctx, client, name, want); on || err != nil {
		return err
	}
	_, refused := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &name, TimeToLiveSpecification: want})
	if refused == nil {
		return nil
	}
	// If the response to the first attempt was lost, the second is refused.
	if on, err := expires(ctx, client, name, want); !on || err != nil {
		return refused
	}
	return nil
}

func expires(ctx context.Context, client *dynamodb.Client, name string, want *types.TimeToLiveSpecification) (bool, error) {
	has, err := client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	if err != nil {
		return false, err
	}
	d := has.TimeToLiveDescription
	return d != nil && aws.ToString(d.AttributeName) == aws.ToString(want.AttributeName), nil
}
