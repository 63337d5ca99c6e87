// Package conventional is the list operation as it is usually written, with the parts that AWS
// offers for it: the SDK's Query, attributevalue into structs, encoding/json, and an offset by
// skipping. It returns the same responses as the API's list operation, which is compared with it.
// Instead of any other operation it does the least that one does in the same way. Nothing else may
// import it.
package conventional

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

type page struct {
	NextOffset        int     `json:"nextOffset"`
	UsageRecordGroups []group `json:"usageRecordGroups"`
}

type group struct {
	ID                  string             `dynamodbav:"id" json:"id"`
	OrganizationID      string             `dynamodbav:"organizationID" json:"organizationID"`
	BuyerID             string             `dynamodbav:"buyerID" json:"buyerID"`
	EntitlementID       string             `dynamodbav:"entitlementID" json:"entitlementID"`
	Partner             string             `dynamodbav:"partner" json:"partner"`
	Status              string             `dynamodbav:"status" json:"status"`
	Records             map[string]float64 `dynamodbav:"records" json:"records"`
	MetaInfo            metaInfo           `dynamodbav:"metaInfo" json:"metaInfo"`
	SerialID            int32              `dynamodbav:"serialID" json:"serialID"`
	UsageRecordReportID string             `dynamodbav:"usageRecordReportID" json:"usageRecordReportID"`
	CreationTime        string             `dynamodbav:"creationTime" json:"creationTime"`
	LastUpdateTime      string             `dynamodbav:"lastUpdateTime" json:"lastUpdateTime"`
	ReportedTime        string             `dynamodbav:"reportedTime" json:"reportedTime,omitempty"`
}

type metaInfo struct {
	SkipValidation  bool               `dynamodbav:"SkipValidation" json:"SkipValidation,omitempty"`
	Source          string             `dynamodbav:"source" json:"source,omitempty"`
	Timestamp       string             `dynamodbav:"timestamp" json:"timestamp,omitempty"`
	OriginRecords   map[string]float64 `dynamodbav:"originRecords" json:"originRecords,omitempty"`
	BillableRecords []struct {
		Key        string         `dynamodbav:"key" json:"key"`
		Properties map[string]any `dynamodbav:"properties" json:"properties,omitempty"`
		Quantity   float64        `dynamodbav:"quantity" json:"quantity"`
	} `dynamodbav:"billableRecords" json:"billableRecords,omitempty"`

	LagoAmount                            float64 `dynamodbav:"lagoAmount" json:"lagoAmount,omitempty"`
	LagoSubscriptionID                    string  `dynamodbav:"lagoSubscriptionID" json:"lagoSubscriptionID,omitempty"`
	LagoUsageStartTime                    string  `dynamodbav:"lagoUsageStartTime" json:"lagoUsageStartTime,omitempty"`
	MetronomeDailyCostAmount              float64 `dynamodbav:"metronomeDailyCostAmount" json:"metronomeDailyCostAmount,omitempty"`
	MetronomeInvoiceID                    string  `dynamodbav:"metronomeInvoiceID" json:"metronomeInvoiceID,omitempty"`
	MetronomeMonthlyInvoiceAmount         float64 `dynamodbav:"metronomeMonthlyInvoiceAmount" json:"metronomeMonthlyInvoiceAmount,omitempty"`
	MetronomeMonthlyInvoiceAmountAdjusted float64 `dynamodbav:"metronomeMonthlyInvoiceAmountAdjusted" json:"metronomeMonthlyInvoiceAmountAdjusted,omitempty"`
	StripeInvoiceID                       string  `dynamodbav:"stripeInvoiceID" json:"stripeInvoiceID,omitempty"`
	StripePeriodEndTime                   string  `dynamodbav:"stripePeriodEndTime" json:"stripePeriodEndTime,omitempty"`
	StripePeriodStartTime                 string  `dynamodbav:"stripePeriodStartTime" json:"stripePeriodStartTime,omitempty"`
	StripeSubscriptionItemID              string  `dynamodbav:"stripeSubscriptionItemID" json:"stripeSubscriptionItemID,omitempty"`
	StripeUsageRecordSummaryID            string  `dynamodbav:"stripeUsageRecordSummaryID" json:"stripeUsageRecordSummaryID,omitempty"`
	StripeUsageRecordSummaryTotalUsage    int32   `dynamodbav:"stripeUsageRecordSummaryTotalUsage" json:"stripeUsageRecordSummaryTotalUsage,omitempty"`
}

// Handler serves GET /org/{orgId}/usageRecordGroup with startDate, endDate, offset and limit. It
// does not authenticate clients, and checks little.
func Handler(client *dynamodb.Client, table string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /org/{orgId}/usageRecordGroup", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		offset, _ := strconv.Atoi(query.Get("offset"))
		limit, err := strconv.Atoi(query.Get("limit"))
		if err != nil {
			limit = 1000
		}
		answer, err := list(r.Context(), client, &dynamodb.QueryInput{
			TableName:                &table,
			IndexName:                aws.String("byTime"),
			KeyConditionExpression:   aws.String("PK = :org AND #time BETWEEN :start AND :end"),
			ExpressionAttributeNames: map[string]string{"#time": "_time"},
			ExpressionAttributeValues: map[string]types.AttributeValue{
				":org":   &types.AttributeValueMemberS{Value: "ORG#" + r.PathValue("orgId")},
				":start": &types.AttributeValueMemberS{Value: query.Get("startDate")},
				":end":   &types.AttributeValueMemberS{Value: query.Get("endDate") + "U"},
			},
			ScanIndexForward: aws.Bool(false),
			Limit:            aws.Int32(int32(offset + limit + 1)),
		}, offset, limit)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		body, err := json.Marshal(answer)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer, err := other(r, client, table)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	return mux
}

// calls are the items that an operation other than the list has to read and to write.
func calls(r *http.Request) (reads, writes int) {
	_, operation, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/org/"), "/")
	switch {
	case r.Method == http.MethodGet:
		return 1, 0
	case operation == "batchValidateUsageRecordGroups": // the entitlement, its connection, the config
		return 3, 0
	case operation == "batchCreateUsageRecordGroups", strings.HasSuffix(operation, "/usageRecordGroup"): // and the serial number, the group
		return 3, 2
	case strings.HasSuffix(operation, "/retry"): // the group too
		return 4, 1
	default:
		return 1, 1
	}
}

// other stands for all other operations: it reads the body, if there is one, and makes the calls.
// The items are always the same group.
func other(r *http.Request, client *dynamodb.Client, table string) (g group, err error) {
	var body any
	if r.ContentLength > 0 {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return g, err
		}
	}
	type key struct{ PK, SK string }
	item, err := attributevalue.MarshalMap(key{"ORG#demo", "GROUP#urg-2417"})
	if err != nil {
		return g, err
	}
	reads, writes := calls(r)
	for range reads {
		out, err := client.GetItem(r.Context(), &dynamodb.GetItemInput{TableName: &table, Key: item, ConsistentRead: aws.Bool(true)})
		if err == nil {
			err = attributevalue.UnmarshalMap(out.Item, &g)
		}
		if err != nil {
			return g, err
		}
	}
	for range writes {
		item, err := attributevalue.MarshalMap(struct {
			key
			group
		}{key{"CONVENTIONAL", "CONVENTIONAL"}, g})
		if err == nil {
			_, err = client.PutItem(r.Context(), &dynamodb.PutItemInput{
				TableName: &table, Item: item, ConditionExpression: aws.String("attribute_not_exists(unused)"),
			})
		}
		if err != nil {
			return g, err
		}
	}
	return g, nil
}

func list(ctx context.Context, client *dynamodb.Client, input *dynamodb.QueryInput, offset, limit int) (page, error) {
	groups := make([]group, 0, limit+1)
	pages := dynamodb.NewQueryPaginator(client, input)
	for pages.HasMorePages() && len(groups) <= limit {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return page{}, err
		}
		skipped := min(offset, len(out.Items))
		offset -= skipped
		var more []group
		if err := attributevalue.UnmarshalListOfMaps(out.Items[skipped:], &more); err != nil {
			return page{}, err
		}
		groups = append(groups, more...)
	}
	if len(groups) <= limit {
		return page{0, groups}, nil
	}
	return page{int(aws.ToInt32(input.Limit)) - 1, groups[:limit]}, nil
}
