package metering

import (
	"fmt"
	"time"
)

// EntitlementChange creates or replaces an entitlement.
type EntitlementChange struct {
	Conditions  Conditions
	Entitlement Entitlement // as the client sent it
	Now         time.Time
}

// NewEntitlementChange checks what a client sent for the entitlement of the path. It returns
// Invalid with the path of the member and what is accepted.
func NewEntitlementChange(org OrgID, id EntitlementID, sent *Entitlement, conditions Conditions, now time.Time) (EntitlementChange, error) {
	e := *sent
	switch {
	case e.ID != "" && e.ID != id:
		return EntitlementChange{}, Errorf(Invalid, "id is %s: it must be that of the path, %s, or absent", Quote(e.ID), Quote(id))
	case e.OrganizationID != "" && e.OrganizationID != org:
		return EntitlementChange{}, Errorf(Invalid, "organizationID is %s: it must be that of the path, %s, or absent", Quote(e.OrganizationID), Quote(org))
	case e.Status == EntitlementDeleted:
		return EntitlementChange{}, Errorf(Invalid, "status is %q: DELETE deletes an entitlement; PUT accepts any other status", e.Status)
	}
	e.ID, e.OrganizationID = id, org
	if e.Status == "" {
		e.Status = EntitlementActive
	}
	if err := e.check(); err != nil {
		return EntitlementChange{}, err
	}
	return EntitlementChange{Conditions: conditions, Entitlement: e, Now: now.UTC().Truncate(time.Millisecond)}, nil
}

func (e *Entitlement) check() error {
	for _, member := range []struct {
		name, value string
		check       func(string) error
	}{
		{"partner", string(e.Partner), func(string) error { return nil }}, // a decoder checks the value
		{"buyerID", string(e.BuyerID), func(s string) error { return checkBytes(s, MaxBuyerID, anywhere) }},
	} {
		if member.value == "" {
			return Errorf(Invalid, "%s is missing: partner and buyerID are required", member.name)
		}
		if err := member.check(member.value); err != nil {
			return Errorf(Invalid, "%s is %s: %v", member.name, Quote(member.value), err)
		}
	}
	if e.ProductID != "" {
		if err := checkBytes(string(e.ProductID), MaxProductID, anywhere); err != nil {
			return Errorf(Invalid, "productID is %s: %v", Quote(e.ProductID), err)
		}
	}
	if e.ExternalID != "" {
		if err := checkBytes(e.ExternalID, MaxExternalID, anywhere); err != nil {
			return Errorf(Invalid, "externalID is %s: %v", Quote(e.ExternalID), err)
		}
	}
	if e.Info.CommitAmount.Sign() < 0 {
		return Errorf(Invalid, "info.commitAmount is %s: it must be 0 or more", e.Info.CommitAmount)
	}
	first := make(map[string]int, len(e.Info.Dimensions))
	for i := range e.Info.Dimensions {
		key := e.Info.Dimensions[i].Key
		path := fmt.Sprintf("info.dimensions[%d].key", i)
		if key == "" {
			return Errorf(Invalid, "%s is missing: each dimension must have a key of 1 to %d characters", path, MaxKey)
		}
		if err := CheckKey(key); err != nil {
			return Errorf(Invalid, "%s is %s: %v", path, Quote(key), err)
		}
		if j, twice := first[key]; twice {
			return Errorf(Invalid, "%s is %s again, as info.dimensions[%d] has it: each key may be there once", path, Quote(key), j)
		}
		first[key] = i
	}
	if err := e.Marketplace.Check(e.Partner); err != nil {
		return Errorf(Invalid, "marketplace.%v", err)
	}
	return nil
}

// Apply returns the entitlement to store in place of the stored one. Its LastUpdateTime is the
// stored one's, so that an unchanged entitlement is equal to it. Apply returns PreconditionFailed
// if the stored one does not meet the conditions.
func (c *EntitlementChange) Apply(stored *Stored[Entitlement]) (Entitlement, error) {
	if err := CheckConditions(c.Conditions, "the entitlement", stored); err != nil {
		return Entitlement{}, err
	}
	e, before := c.Entitlement, &stored.Value
	e.CreationTime, e.LastUpdateTime = before.CreationTime, before.LastUpdateTime
	if e.CreationTime.IsZero() { // none is stored, or what is stored can't be read
		e.CreationTime, e.LastUpdateTime = c.Now, c.Now
	}
	if e.Status == EntitlementCancelled && e.CancelTime.IsZero() {
		e.CancelTime = c.Now
		if before.Status == EntitlementCancelled && !before.CancelTime.IsZero() {
			e.CancelTime = before.CancelTime
		}
	}
	return e, nil
}

// EntitlementDeletion deletes an entitlement.
type EntitlementDeletion struct {
	Conditions Conditions
	Now        time.Time
}

// Apply returns the stored entitlement as DELETED. It returns PreconditionFailed if it does not
// meet the conditions, and its error if it can't be read.
func (d *EntitlementDeletion) Apply(stored *Stored[Entitlement]) (Entitlement, error) {
	if err := CheckConditions(d.Conditions, "the entitlement", stored); err != nil {
		return Entitlement{}, err
	}
	e := stored.Value
	e.Status = EntitlementDeleted
	e.LastUpdateTime = d.Now.UTC().Truncate(time.Millisecond)
	return e, stored.Err
}

// IdentityKey is that of the entitlement's marketplace identifiers; it may be empty.
func (e *Entitlement) IdentityKey() string { return e.Marketplace.IdentityKey(e.Partner) }

// EntitlementFilter selects entitlements; an empty member selects all.
type EntitlementFilter struct {
	Partner    Partner
	ProductID  ProductID
	BuyerID    BuyerID
	ExternalID string
}
