package sandbox

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// ControlDescription is the OpenAPI description of the control API.
//
//go:embed control.yaml
var ControlDescription []byte

// maxControlBody bounds a catalog.
const maxControlBody = 64 << 20

// The operations of the marketplaces, as faults and the log of requests name them.
var operations = []string{
	opBatchMeterUsage, opResolveCustomer, opAzureToken, opUsageEvent, opBatchUsageEvent, opUsageEvents,
	opGoogleToken, opExchange, opImpersonate, opCheck, opReport,
}

// marketplaceOf returns the marketplace that has the operation.
func marketplaceOf(operation string) Marketplace {
	switch operation {
	case opBatchMeterUsage, opResolveCustomer:
		return AWS
	case opAzureToken, opUsageEvent, opBatchUsageEvent, opUsageEvents:
		return Azure
	}
	return Google
}

// meters reports whether the operation may bill usage.
func meters(operation string) bool {
	switch operation {
	case opBatchMeterUsage, opUsageEvent, opBatchUsageEvent, opReport:
		return true
	}
	return false
}

func (s *Sandbox) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request) (status int, value any, err error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			status, value, err := do(r)
			if err != nil {
				value = map[string]string{"error": err.Error()}
			}
			resp := response{status: status}
			if value != nil {
				resp = jsonResponse(status, "application/json", value)
			}
			(*hit)(nil).respond(w, r, resp)
		})
	}
	handle("GET /control/catalog", func(*http.Request) (int, any, error) { return ok(s.Catalog()) })
	handle("PUT /control/catalog", s.controlPutCatalog)
	handle("GET /control/clock", func(*http.Request) (int, any, error) { return ok(s.Clock()) })
	handle("PUT /control/clock", s.controlPutClock)
	handle("GET /control/faults", func(*http.Request) (int, any, error) {
		faults, err := s.Faults()
		return ok(map[string]any{"faults": faults}, err)
	})
	handle("POST /control/faults", s.controlPostFault)
	handle("DELETE /control/faults", func(*http.Request) (int, any, error) { return done(s.ClearFaults()) })
	handle("GET /control/requests", s.controlRequests)
	handle("GET /control/records", s.controlRecords)
	handle("GET /control/bill", func(r *http.Request) (int, any, error) {
		if err := onlyQuery(r, "month"); err != nil {
			return http.StatusBadRequest, nil, err
		}
		bill, err := s.Bill(r.URL.Query().Get("month"))
		if err != nil {
			return refused(err)
		}
		return http.StatusOK, bill, nil
	})
	handle("POST /control/reset", func(*http.Request) (int, any, error) { return done(s.Reset()) })
	mux.HandleFunc("GET /control/openapi.yaml", func(w http.ResponseWriter, r *http.Request) {
		header := http.Header{"Content-Type": {"application/yaml"}}
		(*hit)(nil).respond(w, r, response{http.StatusOK, header, ControlDescription})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		plain := &statusWriter{header: http.Header{}}
		handler.ServeHTTP(plain, r)
		if allow := plain.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			controlError(w, plain.status, r.Method+" is not allowed here, but "+allow)
			return
		}
		controlError(w, plain.status, "there is no "+r.URL.Path+": /control/openapi.yaml describes what there is")
	})
}

// A statusWriter keeps header and status of a response, whose body is replaced.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header         { return w.header }
func (w *statusWriter) WriteHeader(status int)      { w.status = status }
func (w *statusWriter) Write(b []byte) (int, error) { return len(b), nil }

// controlError sends an error in the form of the control API.
func controlError(w http.ResponseWriter, status int, message string) {
	(*hit)(nil).respond(w, nil, jsonResponse(status, "application/json", map[string]string{"error": message}))
}

// ok is the response to a read, which fails only if the journal fails.
func ok[T any](value T, err error) (int, any, error) {
	if err != nil {
		return http.StatusInternalServerError, nil, err
	}
	return http.StatusOK, value, nil
}

func done(err error) (int, any, error) {
	if err != nil {
		return http.StatusInternalServerError, nil, err
	}
	return http.StatusNoContent, nil, nil
}

// refused is the response to an invalid change, or to one that the journal has not stored.
func refused(err error) (int, any, error) {
	if errors.Is(err, errJournal) {
		return http.StatusInternalServerError, nil, err
	}
	return http.StatusBadRequest, nil, err
}

func controlBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxControlBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(body) > maxControlBody {
		return nil, fmt.Errorf("the body has more than %d bytes", maxControlBody)
	}
	return body, nil
}

func (s *Sandbox) controlPutCatalog(r *http.Request) (int, any, error) {
	body, err := controlBody(r)
	var c Catalog
	if err == nil {
		c, err = ReadCatalog(body)
	}
	if err != nil {
		return http.StatusBadRequest, nil, err
	}
	if err := s.PutCatalog(c); err != nil {
		return refused(err)
	}
	return http.StatusOK, c, nil
}

func (s *Sandbox) controlPutClock(r *http.Request) (int, any, error) {
	body, err := controlBody(r)
	var wish struct {
		Time    string `json:"time"`
		Advance string `json:"advance"`
		Frozen  *bool  `json:"frozen"`
	}
	if err == nil {
		err = readStrict(body, &wish)
	}
	change := ClockChange{Frozen: wish.Frozen}
	if err == nil && wish.Advance != "" {
		if change.Advance, err = time.ParseDuration(wish.Advance); err != nil {
			err = fmt.Errorf("advance is %q: it must be a duration such as 1h30m", wish.Advance)
		}
	}
	switch {
	case err != nil || wish.Time == "":
	case wish.Time == "real":
		change.Real = true
	default:
		var t time.Time
		if t, err = parseTime(wish.Time); err != nil {
			err = fmt.Errorf(`time is %q: it must be as in 2026-11-26T22:00:00Z, or "real"`, wish.Time)
		}
		change.Time = &t
	}
	if err != nil {
		return http.StatusBadRequest, nil, err
	}
	clock, err := s.SetClock(change)
	if err != nil {
		return refused(err)
	}
	return http.StatusOK, clock, nil
}

func (s *Sandbox) controlPostFault(r *http.Request) (int, any, error) {
	body, err := controlBody(r)
	var f Fault
	if err == nil {
		err = readStrict(body, &f)
	}
	if err == nil {
		err = noZeros(body)
	}
	if err == nil {
		f, err = s.AddFault(f)
	}
	if err != nil {
		return refused(err)
	}
	return http.StatusCreated, f, nil
}

// noZeros returns an error if a member of the rule is 0 and must be over 0. In a Fault, 0
// means that the member is absent.
func noZeros(rule []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(rule, &members); err != nil {
		return err
	}
	for _, name := range []string{"probability", "status", "delayMs", "id", "matched", "hit"} {
		var n float64
		if text := members[name]; text != nil && string(text) != "null" && json.Unmarshal(text, &n) == nil && n == 0 {
			return fmt.Errorf("%s is 0: it must be over 0, or absent", name)
		}
	}
	if text := members["code"]; string(text) == `""` {
		return errors.New("code is empty: leave it out")
	}
	return nil
}

func (s *Sandbox) controlRequests(r *http.Request) (int, any, error) {
	if err := onlyQuery(r, "marketplace", "operation", "after", "limit"); err != nil {
		return http.StatusBadRequest, nil, err
	}
	q := r.URL.Query()
	after, err := wholeNumber(q.Get("after"), 0)
	if err != nil {
		return http.StatusBadRequest, nil, fmt.Errorf("after: %w", err)
	}
	limit, err := wholeNumber(q.Get("limit"), 1000)
	if err != nil {
		return http.StatusBadRequest, nil, fmt.Errorf("limit: %w", err)
	}
	all, dropped, err := s.requests()
	found, more := []Request{}, false
	for i := range all {
		match := all[i].Number > after && (!q.Has("marketplace") || q.Get("marketplace") == string(all[i].Marketplace)) &&
			(!q.Has("operation") || q.Get("operation") == all[i].Operation)
		if match && uint64(len(found)) == limit {
			more = true
			break
		}
		if match {
			found = append(found, all[i])
		}
	}
	return ok(map[string]any{"requests": found, "dropped": dropped, "more": more}, err)
}

func (s *Sandbox) controlRecords(r *http.Request) (int, any, error) {
	if err := onlyQuery(r, "marketplace"); err != nil {
		return http.StatusBadRequest, nil, err
	}
	q := r.URL.Query()
	all, err := s.Records()
	found := []Record{}
	for i := range all {
		if !q.Has("marketplace") || q.Get("marketplace") == string(all[i].Marketplace) {
			found = append(found, all[i])
		}
	}
	return ok(map[string]any{"records": found}, err)
}

func wholeNumber(text string, absent uint64) (uint64, error) {
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q must be a whole number", text)
	}
	return n, nil
}

func onlyQuery(r *http.Request, names ...string) error {
	for name, values := range r.URL.Query() {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known || len(values) > 1 {
			return fmt.Errorf("parameter %q: known are %v, each once", name, names)
		}
	}
	return nil
}
