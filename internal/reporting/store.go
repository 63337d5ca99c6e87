package reporting

import (
	"context"
	"iter"
	"maps"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Store is what the workers read and write. All reads are consistent, but for those of the index of
// work, which may lag: it means late work, not lost work. All writes can be repeated.
type Store interface {
	// Gate returns why workers must not open, send or apply anything: an operator has paused them,
	// or the table is not the one that they began on, because it was restored. It is empty if they
	// may.
	Gate(ctx context.Context) (closed string, err error)

	// Floor is the first hour that may be opened, as Gate has read it last; zero if any may. It is
	// set when a table was restored: what was sent before is not known.
	Floor() time.Time

	// TermsOf returns the terms of entitlements of an organization.
	TermsOf(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool) (metering.TermsByEntitlement, error)

	// Connection returns the connection of an organization to a partner. It returns NotFound if
	// none exists.
	Connection(ctx context.Context, org metering.OrgID, partner metering.Partner) (metering.Stored[metering.Connection], error)

	// EachPlace calls take for each place that has groups which wait for it, or an hour which is
	// OPEN or DECIDED, between these hours, both included. A zero first hour is any.
	EachPlace(ctx context.Context, first, last time.Time, take func(reports.Place) error) error
	// EachSealed calls take for each sealed hour, lane by lane, those of a lane by their next
	// attempt.
	EachSealed(ctx context.Context, take func(lane string, next time.Time, p reports.Place) error) error
	// Due returns the sealed hours of a lane whose next attempt is due, by next attempt, in pages
	// of at most max. The last one may be empty.
	Due(ctx context.Context, lane string, now time.Time, max int) iter.Seq2[[]reports.Place, error]
	// Waiting returns the groups that wait for a place, by their ids.
	Waiting(ctx context.Context, p reports.Place) ([]metering.GroupID, error)

	// Hour returns an hour with its records; nil if it does not exist. It returns an error if the
	// hour is of a newer version.
	Hour(ctx context.Context, p reports.Place) (*reports.Hour, error)
	// Hours returns hours by their places; those that do not exist, or are of a newer version, are
	// missing.
	Hours(ctx context.Context, places []reports.Place) (map[reports.Place]*reports.Hour, error)
	// Open stores the lists of candidates, then the hour. It returns reports.ErrChanged if the hour
	// exists.
	Open(ctx context.Context, h *reports.Hour, candidates [][]metering.GroupID) error
	// Candidates returns a list of candidates, by its index below h.Parts.
	Candidates(ctx context.Context, h *reports.Hour, part int) (reports.Candidates, error)
	// PutSum stores the sum of a list of candidates.
	PutSum(ctx context.Context, h *reports.Hour, part int, sum *reports.Sum) error
	// Billable returns what the members with billable records of a list used, as far as it is
	// stored and can be read. PutBillable stores it, in the place of what is stored.
	Billable(ctx context.Context, h *reports.Hour, part int) (*reports.Billable, error)
	PutBillable(ctx context.Context, h *reports.Hour, part int, b *reports.Billable) error
	// AppliedLists returns how many lists, from the first on, are noted to be applied: each member
	// has its status of this version of the hour. PutAppliedLists notes it.
	AppliedLists(ctx context.Context, h *reports.Hour) (int, error)
	PutAppliedLists(ctx context.Context, h *reports.Hour, lists int) error
	// Lease leases the hour of a place to the holder until that time. It returns false if it is
	// leased to another one. EndLease ends the holder's lease.
	Lease(ctx context.Context, p reports.Place, holder string, now, until time.Time) (bool, error)
	EndLease(ctx context.Context, p reports.Place, holder string) error
	// Ledger returns the ledger of an entitlement. One that was never written is empty.
	Ledger(ctx context.Context, org metering.OrgID, entitlement metering.EntitlementID) (reports.Ledger, error)
	// Write stores what a step has made of an hour, in one transaction. It returns
	// reports.ErrChanged if the stored hour is not the one that the step began with, or the ledger
	// not the one before.
	Write(ctx context.Context, s *reports.Step) error
	// PutReport stores the copy of the hour that clients list. ids are its first groups.
	PutReport(ctx context.Context, h *reports.Hour, ids []metering.GroupID) error

	// Claim makes a group that waits for the hour, and is CREATED, a member of it: REPORT_PENDING.
	// It returns nil if the group is no member: it was deleted, or waits for another hour.
	// reportBy, unless it is zero, becomes the group's if it is earlier.
	Claim(ctx context.Context, h *reports.Hour, id metering.GroupID, now, reportBy time.Time) (*reports.Member, error)
	// Members returns those of the groups that are members of the hour, whatever their status.
	Members(ctx context.Context, h *reports.Hour, ids []metering.GroupID) ([]reports.Member, error)
	// WaitingGroups returns those of the groups that are CREATED and wait for the place.
	WaitingGroups(ctx context.Context, p reports.Place, ids []metering.GroupID) ([]metering.Group, error)
	// Move makes a group that waits for a place wait for a later hour. It does nothing if the group
	// does not wait for the place any more.
	Move(ctx context.Context, p reports.Place, id metering.GroupID, to time.Time) error
	// Expire makes a group that waits for a place REPORT_FAILED, with the problem. It does nothing
	// if the group does not wait for the place any more.
	Expire(ctx context.Context, p reports.Place, id metering.GroupID, problem metering.Problem, now time.Time) (expired bool, err error)
	// Apply gives a member of the hour its status: one that is REPORT_PENDING, or REPORT_FAILED by
	// an earlier version of the hour. It does nothing if the group is in another status or hour.
	Apply(ctx context.Context, h *reports.Hour, id metering.GroupID, applied *reports.Applied, now time.Time) error

	// EachUnreconciled calls take for each day that is to be compared with what its marketplace has
	// processed: of each entitlement at a marketplace that can be read back. Those of an
	// organization and a date follow each other.
	EachUnreconciled(ctx context.Context, take func(reports.Day) error) error
	// Day returns the hours of a day. It returns reports.ErrNewer if one can't be read.
	Day(ctx context.Context, d reports.Day) (reports.StoredDay, error)
	// Reconciled ends the comparison of a day. It does nothing if an outcome of the day has changed
	// since it was read.
	Reconciled(ctx context.Context, d reports.Day, read reports.StoredDay) error
}

// TermsReader is the part of Store that reads terms.
type TermsReader interface {
	TermsOf(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool) (metering.TermsByEntitlement, error)
}

// ReadableTerms returns the terms of those of the entitlements whose terms can be read, and why
// those of the others can't: one is stored that this version can't read.
func ReadableTerms(ctx context.Context, from TermsReader, org metering.OrgID, ids []metering.EntitlementID) (metering.TermsByEntitlement, map[metering.EntitlementID]error, error) {
	terms, err := from.TermsOf(ctx, org, ids, false)
	if !isUnreadable(err) {
		return terms, nil, err
	}
	readable, unreadable := metering.TermsByEntitlement{}, map[metering.EntitlementID]error{}
	_, common := from.TermsOf(ctx, org, nil, false)
	switch {
	case isUnreadable(common): // the config or a connection
		for _, id := range ids {
			unreadable[id] = common
		}
		return readable, unreadable, nil
	case common != nil:
		return nil, nil, common
	}
	var halve func(ids []metering.EntitlementID, err error) error
	halve = func(ids []metering.EntitlementID, err error) error {
		if len(ids) == 1 {
			unreadable[ids[0]] = err
			return nil
		}
		for _, half := range [][]metering.EntitlementID{ids[:len(ids)/2], ids[len(ids)/2:]} {
			terms, err := from.TermsOf(ctx, org, half, false)
			switch {
			case err == nil:
				maps.Copy(readable, terms)
			case !isUnreadable(err):
				return err
			default:
				if err := halve(half, err); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return readable, unreadable, halve(ids, err)
}

// Queue delivers hints. A hint may be lost, be late or come twice: work is in the table.
type Queue interface {
	Enqueue(ctx context.Context, hints ...Hint) error
}

// Hint names work that a worker should look at. Either Place is set, for Plan, or Lane, for Submit,
// with the organization of the lane in Place.
type Hint struct {
	Place reports.Place
	Lane  string
}

// Marketplaces returns the marketplace of a connection: package connect.
type Marketplaces interface {
	Marketplace(org metering.OrgID, connection metering.Connection) (Marketplace, error)
}
