package apitest

import (
	"net/http"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "getUsageMeteringConfigInfo", scopes: "read config",
	example: configured("GET", ""),
	draw:    drawGetConfig, odds: 1,
	stored: &stored{
		of:      "config",
		model:   func(o *organization) any { return configBody(o.config) },
		service: func(read func(path, query string) doc) any { return read("/usageMeteringConfigInfo", "") },
	},
	shows: []exchange{
		{configured("GET", ""), http.StatusOK},
		{configured("PUT", oneConfig), http.StatusOK},
		{configured("GET", ""), http.StatusOK},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

func drawGetConfig(t *rapid.T, _ *model, o *organization) (request, rule) {
	r := configured("GET", "")
	o.drawConditions(t, "config", r.headers)
	return r, ruleOfGet(r)
}

func ruleOfGet(r request) rule {
	return func(o *organization, _ *modelKey) reply {
		tags := o.tags("config")
		switch match, noneMatch := o.meets("config", r.headers); {
		case !match:
			return reply{status: 412}
		case !noneMatch:
			return reply{status: 304, tags: tags, version: tags.version}
		}
		return reply{status: 200, body: configBody(o.config), tags: tags, version: tags.version}
	}
}
