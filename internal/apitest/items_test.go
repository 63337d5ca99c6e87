package apitest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// itemsIn returns all items of a table, of every organization, by their keys.
func itemsIn(ctx context.Context, client *dynamodb.Client, tableName string) (map[string]doc, error) {
	all, err := tabletest.Items(ctx, client, tableName)
	if err != nil {
		return nil, err
	}
	items := map[string]doc{}
	for _, item := range all {
		plain := plainItem(item)
		items[fmt.Sprintf("%q %q", plain["PK"], plain["SK"])] = plain
	}
	return items, nil
}

func plainItem(item map[string]types.AttributeValue) doc {
	plain := doc{}
	for name, value := range item {
		plain[name] = plainValue(value)
	}
	return plain
}

func plainValue(value types.AttributeValue) any {
	switch value := value.(type) {
	case *types.AttributeValueMemberS:
		return value.Value
	case *types.AttributeValueMemberN:
		return json.Number(value.Value)
	case *types.AttributeValueMemberB:
		return "base64 " + base64.StdEncoding.EncodeToString(value.Value)
	case *types.AttributeValueMemberBOOL:
		return value.Value
	case *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberM:
		return plainItem(value.Value)
	case *types.AttributeValueMemberL:
		l := []any{}
		for _, element := range value.Value {
			l = append(l, plainValue(element))
		}
		return l
	default:
		return fmt.Sprintf("a %T", value)
	}
}

// shapes returns requests without what differs between two equal requests: the table's name, the
// operation's id, and the order of members.
func shapes(requests []tabletest.Request) []string {
	all := []string{}
	for _, r := range requests {
		var body any
		if err := json.Unmarshal(r.Body, &body); err != nil {
			body = string(r.Body)
		}
		text, err := json.Marshal(withoutNames(body))
		if err != nil {
			panic(err)
		}
		all = append(all, r.Action+" "+string(text))
	}
	return all
}

func withoutNames(value any) any {
	switch value := value.(type) {
	case doc:
		delete(value, "TableName")
		delete(value, "ClientRequestToken")                // random
		if tables, ok := value["RequestItems"].(doc); ok { // by name
			value["RequestItems"] = slices.Collect(maps.Values(tables))
		}
		if _, binary := value["B"].(string); binary && len(value) == 1 {
			return "binary"
		}
		for name := range value {
			value[name] = withoutNames(value[name])
		}
	case []any:
		for i := range value {
			value[i] = withoutNames(value[i])
		}
	}
	return value
}
