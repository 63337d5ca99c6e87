package httpapi

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) getConfig(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	conditions, err := readConditions(r)
	if err != nil {
		return err
	}
	current, err := a.Table.Config(r.Context(), organization(r))
	if err != nil {
		return err
	}
	if current.Err != nil {
		return current.Err
	}
	return writeTagged(w, "the config", current.Stored, current, conditions)
}

func (a *API) putConfig(w http.ResponseWriter, r *http.Request) error {
	return a.changeConfig(w, r, true, "application/json")
}

func (a *API) patchConfig(w http.ResponseWriter, r *http.Request) error {
	return a.changeConfig(w, r, false, "application/json", "application/merge-patch+json")
}

func (a *API) changeConfig(w http.ResponseWriter, r *http.Request, replace bool, mediaTypes ...string) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	conditions, err := readConditions(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxConfigBody, mediaTypes...)
	if err != nil {
		return err
	}
	patch, err := wire.DecodeConfigPatch(body)
	if err != nil {
		return err
	}
	change := metering.ConfigChange{Conditions: conditions, Patch: patch, Replace: replace, KeyID: exchangeOf(r).keyID}
	after, written, err := a.Table.ChangeConfig(r.Context(), organization(r), a.Now(), change)
	if err != nil {
		return err
	}
	if written {
		exchangeOf(r).change = slog.Group("change", "item", "config", "fromVersion", after.Version-1, "toVersion", after.Version)
	}
	writeChanged(w, r, after.Stored, after.Tag())
	return nil
}

// contentLocation says that the body of a response is the config as GET returns it, so that its
// ETag is that of this body, not of what was sent (RFC 9110, 8.7). It is relative: the path that
// the client sees may have a stage in front of ours. A colon would make what is before it a scheme.
func contentLocation(r *http.Request) string {
	path := r.URL.EscapedPath()
	return strings.ReplaceAll(path[strings.LastIndexByte(path, '/')+1:], ":", "%3A")
}

// readConditions reads If-Match and If-None-Match (RFC 9110, 13.1.1 and 13.1.2). If-Match compares
// strongly, so a weak ETag in it matches nothing; If-None-Match compares weakly.
func readConditions(r *http.Request) (c metering.Conditions, err error) {
	if c.IfMatch, err = tags(r, "If-Match", false); err != nil {
		return c, err
	}
	c.IfNoneMatch, err = tags(r, "If-None-Match", true)
	return c, err
}

// tags reads the header of that name; the result is nil if it is absent.
func tags(r *http.Request, name string, weak bool) (*metering.Tags, error) {
	values := r.Header.Values(name)
	if len(values) == 0 {
		return nil, nil
	}
	header := strings.Join(values, ",")
	if strings.TrimSpace(header) == "*" {
		return &metering.Tags{Any: true}, nil
	}
	listed, ok := entityTags(header)
	if !ok {
		return nil, metering.Errorf(metering.Invalid, `%s is %s: it must be * or ETags in quotes, such as "3-5d41402abc4b2a76b9719d911017c592"`,
			name, metering.Quote(header))
	}
	t := &metering.Tags{}
	for _, tag := range listed {
		opaque, isWeak := strings.CutPrefix(tag, "W/")
		if weak || !isWeak {
			t.Listed = append(t.Listed, opaque[1:len(opaque)-1])
		}
	}
	return t, nil
}

// entityTags splits a list of at least one ETag. An ETag may contain commas.
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
