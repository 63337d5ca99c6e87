package httpapi

import (
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) getGroup(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	id, err := groupID(r)
	if err != nil {
		return err
	}
	group, err := a.Table.Group(r.Context(), organization(r), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wire.AppendGroup(nil, &group))
	return nil
}

// groupID is the id in the path. No group has one that can't be an id.
func groupID(r *http.Request) (metering.GroupID, error) {
	id, err := metering.ParseGroupID(r.PathValue("usageRecordGroupId"))
	if err != nil {
		return "", metering.Errorf(metering.NotFound, "there is no usage record group %s", metering.Quote(r.PathValue("usageRecordGroupId")))
	}
	return id, nil
}
