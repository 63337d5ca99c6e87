package httpapi

import (
	"net/http"

	"github.com/marketmeter/marketmeter/internal/auth"
)

// Operation names an operation of the API. Up to the first "-" it is the folder of its function
// below functions/, and events/<operation>.json is a real event for it.
type Operation string

// The operations.
const (
	ListGroups    Operation = "list"
	DeleteGroup   Operation = "delete"
	BatchValidate Operation = "batchvalidate"
	GetConfig     Operation = "config-get"
	PutConfig     Operation = "config-put"
	PatchConfig   Operation = "config-patch"
)

// Route says what a client calls, which scopes let it (one of them is enough), and who answers.
// Every path is one of an organization, {orgId}.
type Route struct {
	Operation Operation
	Method    string
	Path      string
	Scopes    auth.Scopes
	handle    func(w http.ResponseWriter, r *http.Request) error
}

// Routes is the whole API. template.yaml, functions/, events/ and api/openapi.yaml are held equal to
// it by TestRoutesAgree.
func (a *API) Routes() []Route {
	return []Route{
		{ListGroups, "GET", "/org/{orgId}/usageRecordGroup", auth.Read, a.listGroups},
		{DeleteGroup, "DELETE", "/org/{orgId}/usageRecordGroup/{usageRecordGroupId}", auth.Write, a.deleteGroup},
		{BatchValidate, "POST", "/org/{orgId}/batchValidateUsageRecordGroups", auth.Read | auth.Write, a.batchValidate},
		{GetConfig, "GET", "/org/{orgId}/usageMeteringConfigInfo", auth.Read | auth.Config, a.getConfig},
		{PutConfig, "PUT", "/org/{orgId}/usageMeteringConfigInfo", auth.Config, a.putConfig},
		{PatchConfig, "PATCH", "/org/{orgId}/usageMeteringConfigInfo", auth.Config, a.patchConfig},
	}
}
