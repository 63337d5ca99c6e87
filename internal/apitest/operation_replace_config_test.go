package apitest

import (
	"net/http"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "replaceUsageMeteringConfigInfo", scopes: "config",
	example: configured("PUT", oneConfig),
	draw:    func(t *rapid.T, w *model, o *organization) (request, rule) { return drawChange(t, w, o, "PUT") },
	odds:    2,
	shows: []exchange{
		{configured("PUT", oneConfig), http.StatusOK},
		{configured("PUT", otherConfig), http.StatusOK},
		{configured("PUT", otherConfig), http.StatusOK}, // it changes nothing
		{configured("PUT", `{}`, `"never"`), http.StatusPreconditionFailed},
	},
	effects: []effect{{again: http.StatusOK}},
	blind:   true,
})
