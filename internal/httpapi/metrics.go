package httpapi

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"strings"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) listMetrics(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "status")
	if err != nil {
		return err
	}
	status, err := member(p, "status", metering.MetricStatuses)
	if err != nil {
		return err
	}
	list, err := a.Table.MetricList(r.Context(), organization(r), status)
	if err != nil {
		return err
	}
	return a.writeList(w, r, list, "this list has no limit and no offset: ask for the metrics of one status with status, or for one by its id")
}

func (a *API) createMetric(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	sent, err := wire.DecodeMetric(body)
	if err != nil {
		return err
	}
	id := a.newMetricID(organization(r))
	metric, err := metering.NewMetric(organization(r), id, &sent, a.Now())
	if err != nil {
		return err
	}
	json, err := a.Table.AddMetric(r.Context(), &metric)
	if err != nil {
		return err
	}
	exchangeOf(r).change = slog.Group("change", "item", "billableMetric", "id", id)
	writeJSON(w, http.StatusOK, json)
	return nil
}

func (a *API) newMetricID(org metering.OrgID) metering.MetricID {
	if a.NewMetricID != nil {
		return a.NewMetricID(org)
	}
	return metering.MetricID("bm-" + strings.ToLower(rand.Text()))
}

func (a *API) getMetric(w http.ResponseWriter, r *http.Request) error {
	id, err := metricRequest(r)
	if err != nil {
		return err
	}
	stored, err := a.Table.Metric(r.Context(), organization(r), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, stored.JSON)
	return nil
}

func (a *API) patchMetric(w http.ResponseWriter, r *http.Request) error {
	id, err := metricRequest(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	patch, err := wire.DecodeMetricPatch(body)
	if err != nil {
		return err
	}
	json, written, err := a.Table.ChangeMetric(r.Context(), organization(r), id, a.Now(), patch)
	if err != nil {
		return err
	}
	if written {
		exchangeOf(r).change = slog.Group("change", "item", "billableMetric", "id", id)
	}
	w.Header().Set("Content-Location", contentLocation(r))
	writeJSON(w, http.StatusOK, json)
	return nil
}

// metricRequest reads the metric of the path.
func metricRequest(r *http.Request) (metering.MetricID, error) {
	if _, err := queryParameters(r); err != nil {
		return "", err
	}
	id, err := metering.ParseMetricID(r.PathValue("billableMetricId"))
	if err != nil {
		return "", metering.Errorf(metering.NotFound, "there is no billable metric %s", metering.Quote(r.PathValue("billableMetricId")))
	}
	return id, nil
}
