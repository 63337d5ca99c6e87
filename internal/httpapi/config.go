package httpapi

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// maxConfigBody is more than a config that can be stored takes.
const maxConfigBody = 1 << 20

func (a *API) getConfig(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	current, err := a.Table.Config(r.Context(), organization(r))
	if err != nil {
		return err
	}
	writeConfig(w, current)
	return nil
}

func (a *API) putConfig(w http.ResponseWriter, r *http.Request) error {
	return a.changeConfig(w, r, []string{"application/json"}, func(_ metering.Config, body metering.ConfigPatch) (metering.Config, error) {
		return body.Apply(metering.Config{})
	})
}

func (a *API) patchConfig(w http.ResponseWriter, r *http.Request) error {
	return a.changeConfig(w, r, []string{"application/json", "application/merge-patch+json"}, func(current metering.Config, body metering.ConfigPatch) (metering.Config, error) {
		return body.Apply(current)
	})
}

func (a *API) changeConfig(w http.ResponseWriter, r *http.Request, mediaTypes []string, apply func(current metering.Config, body metering.ConfigPatch) (metering.Config, error)) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	condition, err := ifMatch(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, maxConfigBody, mediaTypes...)
	if err != nil {
		return err
	}
	patch, err := apijson.DecodeConfigPatch(body)
	if err != nil {
		return err
	}
	var before int
	changed, err := a.Table.ChangeConfig(r.Context(), organization(r), a.Now(), func(current metering.ConfigVersion) (metering.Config, error) {
		before = current.Version
		if !condition(current) {
			return metering.Config{}, metering.Errorf(metering.ConfigChanged,
				"the config is not the one that If-Match names: its ETag is %s now; nothing was written", etag(current))
		}
		return apply(current.Config, patch)
	})
	if err != nil {
		return err
	}
	if changed.Version != before {
		exchangeOf(r).change = slog.Group("change", "item", "config", "fromVersion", before, "toVersion", changed.Version)
	}
	writeConfig(w, changed)
	return nil
}

func writeConfig(w http.ResponseWriter, v metering.ConfigVersion) {
	w.Header().Set("ETag", etag(v))
	writeJSON(w, http.StatusOK, apijson.AppendConfig(nil, v.Config))
}

// etag is strong: a version is written once.
func etag(v metering.ConfigVersion) string { return strconv.Quote(strconv.Itoa(v.Version)) }

// ifMatch reads the If-Match header (RFC 9110, 13.1.1) as a condition on the current config. Without
// one any config meets it; a weak ETag meets none.
func ifMatch(r *http.Request) (func(metering.ConfigVersion) bool, error) {
	header := strings.Join(r.Header.Values("If-Match"), ",")
	if len(r.Header.Values("If-Match")) == 0 || strings.TrimSpace(header) == "*" {
		return func(metering.ConfigVersion) bool { return true }, nil
	}
	wanted, ok := entityTags(header)
	if !ok {
		return nil, metering.Errorf(metering.Invalid, `If-Match is %s: it must be * or ETags in quotes, such as "3"`, metering.Quote(header))
	}
	return func(current metering.ConfigVersion) bool { return slices.Contains(wanted, etag(current)) }, nil
}

// entityTags splits a list of ETags, one at least, in any of which a comma may stand.
func entityTags(list string) (tags []string, ok bool) {
	for rest := list; ; {
		rest = strings.TrimLeft(rest, " \t,") // empty elements are allowed
		if rest == "" {
			return tags, len(tags) > 0
		}
		opaque, _ := strings.CutPrefix(rest, "W/")
		if opaque == "" || opaque[0] != '"' {
			return nil, false
		}
		end := strings.IndexByte(opaque[1:], '"')
		if end < 0 {
			return nil, false
		}
		after := opaque[end+2:]
		tags = append(tags, rest[:len(rest)-len(after)])
		if rest = strings.TrimLeft(after, " \t"); rest != "" && rest[0] != ',' {
			return nil, false
		}
	}
}
