package table

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// maxPuts is how many groups of a batch are put at once.
const maxPuts = 32

// Report stores new groups and returns them in their order, as they are stored. Nothing is stored
// if it returns Invalid, NotFound or, but for a race, Conflict.
//
//	PutItem       PK = ORG#<org>, SK = GROUP#<id>,   1 round trip, 6 write units under 1 KB;
//	              attribute_not_exists(PK)           32 of a batch at once
//	as cached     the terms                          before, at once with the next: none while warm
//	as newSerials the numbers                        before
//	BatchGetItem  the groups                         before, if a batch has ids or its key was used
//
// It is Invalid if a group can't be stored or, in a batch, names an entitlement that does not
// exist; NotFound if the entitlement of a single report does not exist; Conflict if an id, or the
// Idempotency-Key, belongs to another content; Unavailable if it is not known what was stored.
//
// What is judged by cached terms and is not CREATED is judged again by terms that are read again.
// The put of a group has an operation id, so that a retry of the client whose response was lost
// finds its own. With an Idempotency-Key, ids follow from the key, and the first group is put
// before the others: the request that puts it defines what the key means. If it exists, with the
// hash of this request, the request is a repetition: it stores what is missing (decision 46).
func (t *Table) Report(ctx context.Context, org metering.OrgID, report *metering.Report) ([]metering.Group, error) {
	if err := report.Check(org); err != nil {
		return nil, err
	}
	r := &reporting{
		t: t, org: org, Report: report, operation: NewOperation(), terms: make([]*metering.Terms, len(report.Groups)),
		groups: make([]metering.Group, len(report.Groups)), stored: make([]bool, len(report.Groups)),
	}
	numbers := make(chan error, 1)
	early := r.Key == "" && !r.hasIDs() // nothing of it can exist
	if early {
		go func() { numbers <- r.number(ctx) }()
	}
	err := r.judge(ctx)
	if early {
		if failed := <-numbers; err == nil {
			err = failed
		}
	}
	if err == nil {
		err = r.find(ctx)
	}
	if err == nil && !early {
		err = r.number(ctx)
	}
	if err == nil {
		err = r.put(ctx)
	}
	if err != nil {
		return nil, err
	}
	return r.groups, nil
}

// reporting is a report that is being stored.
type reporting struct {
	*metering.Report
	t         *Table
	org       metering.OrgID
	operation Operation
	terms     []*metering.Terms // that each group was judged by
	serials   []int32
	groups    []metering.Group // as they are to be stored, then as they are stored
	stored    []bool           // what is in the table
}

func (r *reporting) hasIDs() bool {
	for i := range r.Groups {
		if r.Groups[i].ID != "" {
			return true
		}
	}
	return false
}

// judge makes the groups.
func (r *reporting) judge(ctx context.Context) error {
	ids, billable := metering.EntitlementsOf(r.Groups)
	terms, fresh, err := r.t.cached(ctx, r.org, ids, billable, r.Now)
	if err != nil {
		return err
	}
	judged := make([]metering.Judgement, len(r.Groups))
	var doubtful []metering.EntitlementID
	for i := range r.Groups {
		of := terms[metering.EntitlementID(r.Groups[i].EntitlementID)]
		judged[i] = of.Judge(&r.Groups[i], r.Now)
		r.terms[i] = of
		if !fresh && (!of.Exist() || len(judged[i].Problems) > 0) {
			doubtful = append(doubtful, metering.EntitlementID(r.Groups[i].EntitlementID))
		}
	}
	if len(doubtful) > 0 {
		slices.Sort(doubtful)
		again, err := r.t.readTerms(ctx, r.org, slices.Compact(doubtful), billable, r.Now)
		if err != nil {
			return err
		}
		for i := range r.Groups {
			if of := again[metering.EntitlementID(r.Groups[i].EntitlementID)]; of != nil {
				judged[i], r.terms[i] = of.Judge(&r.Groups[i], r.Now), of
			}
		}
	}
	if err := r.unknown(ctx); err != nil {
		return err
	}
	for i := range r.Groups {
		if err := r.terms[i].CheckStorable(&r.Groups[i], r.org, &judged[i]); err != nil {
			return r.Refuse(i, err)
		}
		if r.groups[i], err = r.Groups[i].Group(r.org, r.id(i), r.terms[i], &judged[i], r.Now); err != nil {
			return r.Refuse(i, err)
		}
	}
	return r.fits()
}

// unknown returns the error for entitlements that do not exist. A repetition with an
// Idempotency-Key is served even if its entitlements have been deleted since.
func (r *reporting) unknown(ctx context.Context) error {
	var indexes []int
	deleted := true
	for i := range r.Groups {
		if !r.terms[i].Exist() {
			indexes = append(indexes, i)
			deleted = deleted && r.terms[i].Entitlement != nil
		}
	}
	if len(indexes) == 0 {
		return nil
	}
	if r.Key != "" && deleted {
		group, item, err := r.t.group(ctx, r.org, r.id(0))
		if err == nil && r.isMine(0, &group, item) {
			return nil
		}
		if err != nil && metering.CodeOf(err) != metering.NotFound {
			return err
		}
	}
	if !r.Batch {
		return noSuchEntitlement(metering.EntitlementID(r.Groups[0].EntitlementID))
	}
	return metering.Errorf(metering.Invalid, "%s: entitlementID is %s: the organization has no such entitlement; nothing was stored",
		metering.Indexes(indexes), metering.Quote(r.Groups[indexes[0]].EntitlementID))
}

// id returns the id of the i-th group; one that is made is made once.
func (r *reporting) id(i int) metering.GroupID {
	switch {
	case r.groups[i].ID != "":
		return metering.GroupID(r.groups[i].ID)
	case r.Groups[i].ID != "":
		return metering.GroupID(r.Groups[i].ID)
	case r.Key != "":
		return metering.KeyedGroupID(r.org, r.Key, i)
	default:
		var random [10]byte
		rand.Read(random[:]) // never fails
		return metering.NewGroupID(r.Now, random)
	}
}

// fits returns Invalid if the groups are more than a response may hold.
func (r *reporting) fits() error {
	if !r.Batch {
		return nil
	}
	size := sizeLimit{max: metering.MaxListSize}
	var response []byte
	for i := range r.groups {
		response = append(wire.AppendGroup(response, &r.groups[i]), ',')
		if size.exceededBy(response) {
			return metering.Errorf(metering.Invalid, "the groups take more than %d bytes in the response: send fewer at once; nothing was stored", metering.MaxListSize)
		}
	}
	return nil
}

// number takes a serial number for each group that is not stored.
func (r *reporting) number(ctx context.Context) (err error) {
	missing := 0
	for _, stored := range r.stored {
		if !stored {
			missing++
		}
	}
	r.serials, err = r.t.newSerials(ctx, r.org, missing, r.Now)
	return err
}

// find reads those groups of a batch that have ids of the client, and puts the first group of a
// report with an Idempotency-Key.
func (r *reporting) find(ctx context.Context) error {
	if r.Key != "" {
		return r.findKeyed(ctx)
	}
	if !r.Batch || !r.hasIDs() {
		return nil
	}
	var others []int
	err := r.read(ctx, 0, func(i int, group *metering.Group, _ map[string]types.AttributeValue) {
		if r.stored[i] = r.Groups[i].Reports(group); r.stored[i] {
			r.groups[i] = *group
		} else {
			others = append(others, i)
		}
	})
	if err == nil && len(others) > 0 {
		slices.Sort(others)
		err = metering.Errorf(metering.Conflict, "%s: a group with this id exists with other content, the first is %s; nothing new was stored",
			metering.Indexes(others), metering.Quote(r.Groups[others[0]].ID))
	}
	return err
}

// findKeyed puts the first group. If it exists, it reads the others.
func (r *reporting) findKeyed(ctx context.Context) error {
	serials, err := r.t.newSerials(ctx, r.org, 1, r.Now)
	if err != nil {
		return err
	}
	existed, err := r.putOne(ctx, 0, serials[0])
	if err != nil {
		return r.inDoubt(err)
	}
	r.stored[0] = true
	if !existed {
		return nil
	}
	return r.read(ctx, 1, func(i int, group *metering.Group, item map[string]types.AttributeValue) {
		if r.stored[i] = r.isMine(i, group, item); r.stored[i] {
			r.groups[i] = *group
		}
	})
}

// read calls take for each group that exists, from index first on.
func (r *reporting) read(ctx context.Context, first int, take func(i int, group *metering.Group, item map[string]types.AttributeValue)) error {
	indexes := map[string]int{}
	var keys []map[string]types.AttributeValue
	flush := func() error {
		items, err := r.t.batchGet(ctx, "read groups", keys)
		for _, item := range items {
			group, unreadable := itemGroup(item)
			if unreadable != nil {
				return unreadable
			}
			take(indexes[group.ID], &group, item)
		}
		keys = keys[:0]
		return err
	}
	for i := first; i < len(r.Groups); i++ {
		if r.Key == "" && r.Groups[i].ID == "" {
			continue
		}
		indexes[string(r.id(i))] = i
		keys = append(keys, itemKey(orgKey(r.org), groupKey(r.id(i))))
		if len(keys) == maxBatchGet {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// put puts the groups that are not stored yet. After a failure it begins no other put; it returns
// when all have ended.
func (r *reporting) put(ctx context.Context) error {
	if len(r.Groups) == 1 && !r.stored[0] { // no goroutine
		_, err := r.putOne(ctx, 0, r.serials[0])
		return r.inDoubt(err)
	}
	var (
		mu      sync.Mutex
		others  []int
		failure error
		puts    sync.WaitGroup
		room    = make(chan struct{}, maxPuts)
	)
	next := 0
	for i := range r.groups {
		if r.stored[i] {
			continue
		}
		serial := r.serials[next]
		next++
		room <- struct{}{}
		mu.Lock()
		failed := failure != nil
		mu.Unlock()
		if failed {
			break
		}
		puts.Go(func() {
			defer func() { <-room }()
			_, err := r.putOne(ctx, i, serial)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Key == "" && metering.CodeOf(err) == metering.Conflict {
				others = append(others, i)
			} else if failure == nil {
				failure = err
			}
		})
	}
	puts.Wait()
	if failure != nil {
		return r.inDoubt(failure)
	}
	if len(others) > 0 { // another request has stored them since they were read
		slices.Sort(others)
		return metering.Errorf(metering.Conflict, "%s: a group with this id exists with other content; the other groups are stored", metering.Indexes(others))
	}
	return nil
}

// putOne puts the i-th group. If it exists as this report has it, or had it before, existed is true
// and the group becomes the one that exists. Else it is a Conflict.
func (r *reporting) putOne(ctx context.Context, i int, serial int32) (existed bool, err error) {
	group := &r.groups[i]
	group.SerialID = serial
	found, err := r.t.putGroup(ctx, r.operation, r.item(i))
	if err != nil || found == nil {
		return false, err
	}
	if isMine(found, attrOperation, r.operation) { // the response to the first attempt was lost
		return false, nil
	}
	stored, err := itemGroup(found)
	if err != nil {
		return false, err
	}
	same := r.Groups[i].Reports(&stored)
	switch {
	case r.Key != "" && r.isMine(i, &stored, found), r.Key == "" && r.Batch && same:
		*group = stored
		return true, nil
	case r.Key != "":
		return false, metering.Errorf(metering.Conflict,
			"the Idempotency-Key was used before for another request (another operation, path or body): use a new key for each request")
	case same:
		return false, metering.Errorf(metering.Conflict, "a usage record group %s exists with the same content: the usage is stored", metering.Quote(stored.ID))
	default:
		return false, metering.Errorf(metering.Conflict, "a usage record group %s exists with other content: choose another id; nothing was stored", metering.Quote(stored.ID))
	}
}

// isMine reports whether a stored group with the id of the i-th was stored by this request with its
// Idempotency-Key. An imported group has no hash of a request: its content decides.
func (r *reporting) isMine(i int, stored *metering.Group, item map[string]types.AttributeValue) bool {
	if hash, ok := item[attrRequest].(*types.AttributeValueMemberB); ok {
		return string(hash.Value) == string(r.Request[:])
	}
	return r.Groups[i].Reports(stored)
}

// item is what is stored of the i-th group: it waits to be reported if it is CREATED.
func (r *reporting) item(i int) map[string]types.AttributeValue {
	g := &r.groups[i]
	item := groupItem(g)
	statusOf(r.org, g, g.MetaInfo.Timestamp).putInto(item)
	item[attrConfig] = configNumber(r.terms[i])
	if r.Key != "" {
		item[attrRequest] = &types.AttributeValueMemberB{Value: r.Request[:]}
	}
	return item
}

// inDoubt adds to Unavailable what a client has to know after a put: what may be stored, and how it
// repeats the request so that nothing is stored twice.
func (r *reporting) inDoubt(err error) error {
	unavailable, ok := errors.AsType[*metering.Error](err)
	if !ok || unavailable.Code != metering.Unavailable {
		return err
	}
	what := "the usage may be stored or not"
	if r.Batch {
		what = "a part of the batch may be stored"
	}
	how := "repeat the request with the same Idempotency-Key: what is stored is not stored again"
	switch {
	case r.Key != "":
	case r.Batch && r.allHaveIDs():
		how = "repeat the request: groups that are stored already, by their ids, are not stored again"
	case !r.Batch && r.Groups[0].ID != "":
		how = "repeat the request: 409 says that the usage is stored, by its id"
	default:
		how = "list the groups before you send it again, which stores the usage twice if it is stored; a request with an Idempotency-Key, or with ids, can be repeated safely"
	}
	return &metering.Error{
		Code: metering.Unavailable, Message: "the service can't reach its table in time: " + what + "; " + how,
		Cause: err, RetryAfter: unavailable.RetryAfter,
	}
}

func (r *reporting) allHaveIDs() bool {
	for i := range r.Groups {
		if r.Groups[i].ID == "" {
			return false
		}
	}
	return true
}

// statusOf is the status of a group with all that follows from it: if it is CREATED, it waits to be
// reported for the hour of its usage.
func statusOf(org metering.OrgID, g *metering.Group, usage *time.Time) groupStatus {
	s := groupStatus{org: org, status: g.Status, at: g.LastUpdateTime, problems: g.Problems}
	if g.Status == metering.StatusCreated {
		s.work = &work{entitlement: metering.EntitlementID(g.EntitlementID), id: metering.GroupID(g.ID), hour: *usage}
	}
	return s
}
