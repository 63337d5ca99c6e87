package reports

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Unsealed is what is known of an open hour that can't be sealed. All its groups are claimed.
type Unsealed struct {
	Terms  *metering.Terms    // nil if they can't be read; the entitlement may be missing
	Member *metering.Group    // any member, which says whose usage it is if the entitlement does not; nil if there is none
	Groups int                // how many members it has
	Usage  metering.HourUsage // as Billable.AcceptedUsage
	Reason string             // what stops the seal
}

// ErrEarly is the error of Expire before the end of the hour's window.
var ErrEarly = errors.New("the window of the hour is not over")

// Expire ends an open hour that can't be sealed, once its window is over. Nothing of an open hour
// was sent, and now nothing of it can be billed any more: each dimension is REJECTED, with the
// reason. The hour is DECIDED; the ledger does not change. It returns ErrEarly before: a newer
// version or another config may still seal the hour. An hour without members has nothing to wait
// for.
//
// The groups of a table that was restored must not be ended so: what was sent is not known.
func (h Hour) Expire(u *Unsealed, now time.Time) (Hour, error) {
	h, err := h.changed(StateOpen)
	if err != nil {
		return h, err
	}
	terms := u.terms(&h)
	s, e := ScheduleBy(terms), terms.Entitlement
	if u.Groups > 0 && !s.over(h.Start, now) {
		return h, ErrEarly
	}
	h.Sealed = &Sealed{
		Partner: e.Partner, Marketplace: e.Marketplace, Buyer: e.BuyerID, Product: e.ProductID, Groups: u.Groups,
		Config: terms.Config.Version, Entitlement: e.LastUpdateTime, Destinations: u.Usage.Destinations,
	}
	h.Sealed.From, h.Sealed.To, _ = s.Sent(h.Start)
	for _, dimension := range slices.Sorted(maps.Keys(u.Usage.Totals)) {
		r := Record{Dimension: dimension, Members: u.Usage.Totals[dimension], Scale: one}
		r.UnitPrice, r.ListPrice = pricesOf(e, dimension)
		r.reject(metering.ProblemExpired, "the window of the hour ended before it could be sealed: "+u.Reason)
		h.Sealed.Records = append(h.Sealed.Records, r)
	}
	h.State = StateDecided
	return h, nil
}

// terms returns the terms of the hour, with an entitlement: if it is missing, what a member says of
// it.
func (u *Unsealed) terms(h *Hour) *metering.Terms {
	if u.Terms != nil && u.Terms.Entitlement != nil {
		return u.Terms
	}
	e := &metering.Entitlement{ID: h.Entitlement, OrganizationID: h.Organization}
	if m := u.Member; m != nil {
		e.Partner, e.BuyerID, e.ProductID = m.Partner, metering.BuyerID(m.BuyerID), metering.ProductID(m.ProductID)
	}
	terms := &metering.Terms{Entitlement: e}
	if u.Terms != nil {
		terms.Config = u.Terms.Config
	}
	return terms
}
