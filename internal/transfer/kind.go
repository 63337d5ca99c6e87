package transfer

import (
	"context"
	"errors"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Kind is what the lines of an import or an export hold.
type Kind string

// The kinds. Groups name entitlements and metrics, so these are moved first.
const (
	Groups       Kind = "groups"
	Entitlements Kind = "entitlements"
	Metrics      Kind = "metrics"
)

// ParseKind reads the name of a kind.
func ParseKind(text string) (Kind, error) {
	switch kind := Kind(text); kind {
	case Groups, Entitlements, Metrics:
		return kind, nil
	}
	return "", errors.New("it must be groups, entitlements or metrics")
}

// importable is what a line holds.
type importable struct {
	queue  string // lines with the same text are put one after the other
	serial int32  // of a group
	put    func(context.Context, table.Operation) (stored bool, err error)
}

// decode reads and checks a line.
func (im *lineImport) decode(text []byte) (importable, error) {
	switch im.options.Kind {
	case Entitlements:
		e, err := wire.DecodeEntitlement(text)
		if err == nil {
			e.OrganizationID, err = im.owner("organizationID", string(e.OrganizationID))
		}
		if err == nil {
			err = e.CheckImported()
		}
		return importable{put: func(ctx context.Context, operation table.Operation) (bool, error) {
			return im.table.ImportEntitlement(ctx, operation, &e)
		}}, err
	case Metrics:
		m, err := wire.DecodeMetric(text)
		if err == nil {
			m.OrganizationID, err = im.owner("organizationId", string(m.OrganizationID))
		}
		if err == nil {
			err = m.CheckImported()
		}
		return importable{put: func(ctx context.Context, operation table.Operation) (bool, error) {
			return im.table.ImportMetric(ctx, operation, &m)
		}}, err
	default:
		g, err := wire.DecodeGroup(text)
		if err == nil {
			var owner metering.OrgID
			owner, err = im.owner("organizationID", g.OrganizationID)
			g.OrganizationID = string(owner)
		}
		return importable{queue: g.ID, serial: g.SerialID, put: func(ctx context.Context, operation table.Operation) (bool, error) {
			return im.table.PutAs(ctx, operation, &g)
		}}, err
	}
}

// owner returns the organization that a line is imported into, if the line's own allows that.
func (im *lineImport) owner(member, given string) (metering.OrgID, error) {
	if given != "" && given != string(im.org) && !im.options.RewriteOrg {
		return "", metering.Errorf(metering.Invalid, "%s is %s: it must be %s, unless --rewrite-org makes it that",
			member, metering.Quote(given), metering.Quote(string(im.org)))
	}
	return im.org, nil
}
