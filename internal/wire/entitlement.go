package wire

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeEntitlement reads the body of a PUT of an entitlement. Members, types and sets of values
// are checked; Entitlement.Check checks the rest.
func DecodeEntitlement(body []byte) (metering.Entitlement, error) {
	return decode(body, (*decoder).entitlement)
}

// DecodeStoredEntitlement reads a stored entitlement, which a newer version may have written.
func DecodeStoredEntitlement(text []byte) (metering.Entitlement, error) {
	return decodeStored(text, (*decoder).entitlement, metering.EntitlementMembers)
}

func (d *decoder) entitlement() (e metering.Entitlement, err error) {
	err = readMembers(d, "an entitlement, an object", metering.EntitlementMembers, &e, &e.Unknown)
	return e, err
}

// AppendEntitlement appends the entitlement as the API returns it and the table stores it.
func AppendEntitlement(b []byte, e *metering.Entitlement) []byte {
	return appendMembers(b, metering.EntitlementMembers, e, e.Unknown)
}

// DecodeConnection reads the body of a PUT of a connection. Its errors do not quote values, which
// may be secrets that do not belong there.
func DecodeConnection(body []byte) (metering.Connection, error) {
	return decodeBy(&decoder{json: jsontext.NewDecoder(bytes.NewBuffer(body)), private: true}, (*decoder).connection)
}

// DecodeStoredConnection reads a stored connection, which a newer version may have written.
func DecodeStoredConnection(text []byte) (metering.Connection, error) {
	return decodeStored(text, (*decoder).connection, metering.ConnectionMembers)
}

func (d *decoder) connection() (c metering.Connection, err error) {
	err = readMembers(d, "a connection, an object", metering.ConnectionMembers, &c, &c.Unknown)
	return c, err
}

// AppendConnection appends the connection as the table stores it, or its Effective as the API
// returns it.
func AppendConnection(b []byte, c *metering.Connection) []byte {
	return appendMembers(b, metering.ConnectionMembers, c, c.Unknown)
}

// decodeStored reads what is stored with read: of a member that is given twice, the last one
// counts, and none that is required may be absent.
func decodeStored[O any](text []byte, read func(*decoder) (O, error), members []metering.Member[O]) (O, error) {
	d := &decoder{json: jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true)), stored: true}
	o, err := decodeBy(d, read)
	if err == nil {
		err = checkRequired(members, &o)
	}
	return o, err
}
