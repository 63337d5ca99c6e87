package table

import (
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// workAttributes are the keys of an hour in byWork, by its state: they exist until it is SETTLED,
// and after that if a person has to look at it. All that writes an hour writes them.
func workAttributes(h *reports.Hour) map[string]types.AttributeValue {
	switch h.State {
	case reports.StateOpen, reports.StateDecided:
		return map[string]types.AttributeValue{
			attrWork: text(workKey(h.Organization, h.Entitlement)),
			attrDue:  text(dueKey(h.Start, h.Organization, h.Entitlement, "")),
		}
	case reports.StateSealed:
		return map[string]types.AttributeValue{
			attrWork: text(sendKey(h.Sealed.Lane)),
			attrDue:  text(sendDueKey(h.Sealed.Lane, h.Next, h.Start)),
		}
	case reports.StateSettled:
		return troubledAttributes(h)
	default:
		return nil
	}
}
