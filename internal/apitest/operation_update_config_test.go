package apitest

import (
	"net/http"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "updateUsageMeteringConfigInfo", scopes: "config",
	given: []request{configured("PUT", oneConfig)}, example: configured("PATCH", otherConfig),
	draw: func(t *rapid.T, w *model, o *organization) (request, rule) { return drawChange(t, w, o, "PATCH") },
	odds: 5,
	shows: []exchange{
		{configured("PATCH", otherConfig, "*"), http.StatusOK},
		{configured("PATCH", `{}`), http.StatusOK},
		{configured("PATCH", `{"partnerUsageMeteringConfigs": [{"partner": "NONE"}]}`), http.StatusBadRequest},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "with If-Match", request: configured("PATCH", otherConfig, etagOf(1, oneConfig)), again: http.StatusPreconditionFailed},
	},
})
