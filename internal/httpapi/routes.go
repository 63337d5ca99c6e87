package httpapi

import "net/http"

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

// Route says what a client calls and who answers.
type Route struct {
	Operation Operation
	Method    string
	Path      string
	handle    func(w http.ResponseWriter, r *http.Request) error
}

// Routes is the whole API. template.yaml, functions/, events/ and api/openapi.yaml are held equal to
// it by TestRoutesAgree.
func (a *API) Routes() []Route {
	return []Route{
		{ListGroups, "GET", "/org/{orgId}/usageRecordGroup", a.listGroups},
		{DeleteGroup, "DELETE", "/org/{orgId}/usageRecordGroup/{usageRecordGroupId}", a.deleteGroup},
		{BatchValidate, "POST", "/org/{orgId}/batchValidateUsageRecordGroups", a.batchValidate},
		{GetConfig, "GET", "/org/{orgId}/usageMeteringConfigInfo", a.getConfig},
		{PutConfig, "PUT", "/org/{orgId}/usageMeteringConfigInfo", a.putConfig},
		{PatchConfig, "PATCH", "/org/{orgId}/usageMeteringConfigInfo", a.patchConfig},
	}
}
