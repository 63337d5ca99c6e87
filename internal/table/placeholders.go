package table

import (
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// placeholders are the names and values of a request's expressions. A name may be a word that
// DynamoDB reserves, and hold any characters.
type placeholders struct {
	names  map[string]string
	values map[string]types.AttributeValue
}

func newPlaceholders() placeholders {
	return placeholders{map[string]string{}, map[string]types.AttributeValue{}}
}

// name returns a placeholder for the name of an attribute.
func (p placeholders) name(attribute string) string {
	placeholder := "#n" + strconv.Itoa(len(p.names))
	p.names[placeholder] = attribute
	return placeholder
}

func (p placeholders) value(v types.AttributeValue) string {
	placeholder := ":v" + strconv.Itoa(len(p.values))
	p.values[placeholder] = v
	return placeholder
}
