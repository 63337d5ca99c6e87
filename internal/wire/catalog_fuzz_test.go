package wire_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// FuzzCatalog looks for a body of an entitlement or a connection that is accepted or refused
// against its shape or misread, and for a stored one of which something is lost.
func FuzzCatalog(f *testing.F) {
	const times = `"creationTime":"2024-07-29T15:51:28.071Z","lastUpdateTime":"2024-07-29T15:51:28.071Z"`
	for _, body := range []string{
		``, `{}`, `[]`, `{"partner":"AWS","buyerID":"b"}`, `{"partner":"AWS","buyerID":"b","buyerID":"b"}`,
		`{"partner":"AWS","buyerID":"b","id":"e","organizationID":"acme","status":"ACTIVE",` + times + `}`,
		`{"partner":"GCP","buyerID":"b","id":"e","organizationID":"acme","status":"PAUSED","startTime":"someday","info":{"dimensions":[{"key":"k","rate":"free","x":1e3}]},"y":[null],` + times + `}`,
		`{"partner":"AZURE","buyerID":"b","name":null,"productID":"p","externalID":"x","status":"CANCELLED","startTime":"2024-07-29t17:51:28.0719+02:00","endTime":"0001-01-01T00:00:00Z",` +
			`"info":{"currency":"USD","commitAmount":1e3,"dimensions":[{"key":"k","name":"n","description":"d","rate":0.10,"listPrice":-0,"valueType":"v"}]},` +
			`"marketplace":{"resourceID":"2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c","planID":"p","resourceURI":"/subscriptions/x"}}`,
		`{"partner":"AWS","roleArn":"arn:aws:iam::123456789012:role/r","externalID":"x","lateUsage":"CARRY","lockMinutes":1e1,"endpoint":"http://127.0.0.1"}`,
		`{"tenantID":"S3cretS3cret","clientID":"S3cretS3cret","secretArn":"S3cretS3cret","lockMinutes":"S3cretS3cret"}`,
		`{"workloadIdentity":{"type":"external_account","credential_source":{"file":"S3cretS3cret"},"a":[1.50,{}]}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fuzzEntitlement(t, body)
		fuzzConnection(t, body)
	})
}

func fuzzEntitlement(t *testing.T, body []byte) {
	dimension := members{
		"key": orNull(text), "name": orNull(text), "description": orNull(text), "rate": orNull(quantity), "listPrice": orNull(quantity), "valueType": orNull(text),
	}
	info := members{"currency": orNull(text), "commitAmount": orNull(quantity), "dimensions": orNull(arrayOf(dimension.shape))}
	marketplace := members{}
	for i := range metering.MarketplaceMembers {
		marketplace[metering.MarketplaceMembers[i].Name] = orNull(text)
	}
	entitlement := members{
		"id": orNull(text), "organizationID": orNull(text), "name": orNull(text), "partner": orNull(oneOf("AWS", "AZURE", "GCP")), "buyerID": orNull(text),
		"productID": orNull(text), "externalID": orNull(text), "info": orNull(info.shape), "marketplace": orNull(marketplace.shape),
		"status":    orNull(oneOf("ACTIVE", "CANCELLED", "DELETED", "PENDING_CANCEL", "PENDING_START", "SUSPENDED")),
		"startTime": orNull(instant), "endTime": orNull(instant), "cancelTime": orNull(instant), "creationTime": orNull(instant), "lastUpdateTime": orNull(instant),
	}
	value, isJSON := read(body)
	sent, err := wire.DecodeEntitlement(body)
	wantTaken(t, isJSON && entitlement.shape(value), err)
	if err == nil {
		wantWritten(t, value, wire.AppendEntitlement(nil, &sent))
		change, err := metering.NewEntitlementChange("acme", "e", &sent, metering.Conditions{}, time.Unix(1_700_000_000, 0))
		if err != nil {
			wantInvalid(t, err)
		} else if e, err := change.Apply(&metering.Stored[metering.Entitlement]{}); err != nil {
			t.Fatal(err)
		} else {
			written := wire.AppendEntitlement(nil, &e)
			stored, err := wire.DecodeStoredEntitlement(written)
			if rewritten := wire.AppendEntitlement(nil, &stored); err != nil || !bytes.Equal(written, rewritten) {
				t.Fatalf("%s\nis read as\n%s, %v", written, rewritten, err)
			}
		}
	}
	// What is stored is read whatever a newer version has added to it.
	if stored, err := wire.DecodeStoredEntitlement(body); err == nil && isJSON {
		wantWritten(t, value, wire.AppendEntitlement(nil, &stored))
	}
}

func fuzzConnection(t *testing.T, body []byte) {
	connection := members{
		"partner": orNull(oneOf("AWS", "AZURE", "GCP")), "roleArn": orNull(text), "externalID": orNull(text), "tenantID": orNull(text), "clientID": orNull(text),
		"secretArn": orNull(text), "workloadIdentity": orNull(properties), "lateUsage": orNull(oneOf("FAIL", "CARRY")), "lockMinutes": orNull(int32s), "endpoint": orNull(text),
	}
	value, isJSON := read(body)
	sent, err := wire.DecodeConnection(body)
	wantTaken(t, isJSON && connection.shape(value), err)
	if err == nil {
		for _, partner := range metering.Partners {
			if _, err = metering.NewConnectionChange(partner, &sent, metering.ConnectionRules{Organization: "acme"}, metering.Conditions{}); err != nil {
				wantInvalid(t, err)
				wantNoSecret(t, err)
			}
		}
		sent.Partner = "AWS" // which may be absent in a body
		written := wire.AppendConnection(nil, &sent)
		again, err := wire.DecodeConnection(written)
		if rewritten := wire.AppendConnection(nil, &again); err != nil || !bytes.Equal(written, rewritten) {
			t.Fatalf("%s\nis read as\n%s, %v", written, rewritten, err)
		}
	} else {
		wantNoSecret(t, err)
	}
	if stored, err := wire.DecodeStoredConnection(body); err == nil && isJSON {
		wantWritten(t, value, wire.AppendConnection(nil, &stored))
	}
}

// wantNoSecret wants an error that does not quote the value that the corpus has in wrong places.
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	const secret = "S3cretS3cret"
	if message := err.Error(); strings.Contains(message, `"`+secret) || strings.Contains(message, secret+`"`) {
		t.Fatalf("the error quotes a value: %s", message)
	}
}

// wantWritten wants the JSON to say what the value says, but for members that say nothing.
func wantWritten(t *testing.T, value any, written []byte) {
	t.Helper()
	got, isJSON := read(written)
	if !isJSON {
		t.Fatalf("no JSON is written: %s", written)
	}
	if diff := cmp.Diff(withoutZeros(withoutNoTimes(meaning(value))), withoutZeros(withoutNoTimes(meaning(got)))); diff != "" {
		t.Fatalf("-sent +written\n%s", diff)
	}
}

// withoutNoTimes leaves out the time that means none.
func withoutNoTimes(meaning any) any {
	if object, ok := meaning.(map[string]any); ok {
		for name, member := range object {
			if member == "at 0001-01-01T00:00:00.000Z" {
				delete(object, name)
			}
		}
	}
	return meaning
}
