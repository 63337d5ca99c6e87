package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const allScopes = auth.Read | auth.Write | auth.Config | auth.Admin

// keyring knows every key that a test has made and its organization. The requests to DynamoDB are
// checked against that, and not against how the API reads the request.
type keyring struct {
	table *table.Table

	mu            sync.Mutex
	organizations map[auth.Key]string
	everything    map[string]auth.Key // by organization: a key with all scopes
	sent          map[string]bool     // Authorization headers
}

func newKeyring(tbl *table.Table) *keyring {
	return &keyring{table: tbl, organizations: map[auth.Key]string{}, everything: map[string]auth.Key{}, sent: map[string]bool{}}
}

// of returns a key that has all permissions in the organization, the same each time.
func (k *keyring) of(ctx context.Context, org string) (auth.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.everything[org]; ok {
		return key, nil
	}
	key := auth.New()
	k.organizations[key], k.everything[org] = org, key
	return key, k.table.AddAPIKey(ctx, recordOf(key, org, allScopes))
}

// add records that the key was made for the organization.
func (k *keyring) add(key auth.Key, org string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.organizations[key] = org
}

// newKey stores a key; change may give its record other values.
func (a *api) newKey(t testing.TB, org string, scopes auth.Scopes, change ...func(*auth.Record)) auth.Key {
	t.Helper()
	key := auth.New()
	record := recordOf(key, org, scopes)
	for _, c := range change {
		c(record)
	}
	a.keys.add(key, org)
	if err := a.keys.table.AddAPIKey(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return key
}

func recordOf(key auth.Key, org string, scopes auth.Scopes) *auth.Record {
	return &auth.Record{Hash: key.Hash(), Organization: org, Scopes: scopes, CreationTime: now.Add(-24 * time.Hour), CreatedBy: "test"}
}

// lambdaContext is the context that API Gateway passes to a function for a key that has all
// permissions in the organization.
func lambdaContext(org string) doc {
	return doc{"lambda": admitted{"organization": org, "keyId": "0123456789abcdef", "scopes": "read,write,config,admin"}}
}

// with is the request with that key.
func (r request) with(key auth.Key) request { return r.authorized("Key " + string(key)) }

// authorized is the request with that Authorization header.
func (r request) authorized(header string) request {
	headers := map[string]string{}
	for name, value := range r.headers {
		headers[name] = value
	}
	headers["Authorization"] = header
	r.headers = headers
	return r
}

// organizationIn is the organization that a path names. It is acme if the path names none that can
// exist.
func organizationIn(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || parts[0] != "" || parts[1] != "org" {
		return "acme"
	}
	org, err := url.PathUnescape(parts[2])
	if err != nil || !canBeOrganization(org) {
		return "acme"
	}
	return org
}

// canBeOrganization is the contract's rule for identifiers.
func canBeOrganization(id string) bool {
	return len(id) >= 1 && len(id) <= 64 && utf8.ValidString(id) && !strings.ContainsFunc(id, unicode.IsControl) &&
		!strings.ContainsAny(id, "/?%") && id != "." && id != ".."
}

// keyIn returns the key that a request sends, if any of its headers can be one.
func keyIn(r request) (key auth.Key, wellFormed bool) {
	header := strings.Trim(r.headers["Authorization"], " \t")
	if _, twice := r.again["Authorization"]; twice {
		return "", false
	}
	if scheme, rest, ok := strings.Cut(header, " "); ok && slices.Contains([]string{"key", "bearer"}, strings.ToLower(scheme)) {
		header = strings.Trim(rest, " \t")
	}
	return auth.Key(header), isWellFormed(header)
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// isWellFormed checks a key's form as documented: mm_, 32 characters of base62, and the CRC-32 of
// these 35 in 6 more.
func isWellFormed(key string) bool {
	if len(key) != 41 || key[:3] != "mm_" || strings.Trim(key[3:], base62) != "" {
		return false
	}
	return key == string(keyOf(key[3:35]))
}

// keyOf returns the key whose random part is secret.
func keyOf(secret string) auth.Key {
	key := []byte("mm_" + secret + "000000")
	for i, rest := len(key)-1, crc32.ChecksumIEEE(key[:35]); rest > 0; i, rest = i-1, rest/62 {
		key[i] = base62[rest%62]
	}
	return auth.Key(key)
}

// Partitions, as in docs/data-model.md.

func keyPartition(key auth.Key) string {
	hash := sha256.Sum256([]byte(key))
	return "KEY#" + hex.EncodeToString(hash[:])
}

func orgPartition(org string) string {
	return "ORG#" + strings.ReplaceAll(strings.ReplaceAll(org, "%", "%25"), "#", "%23")
}

// isOfKey reports whether a request is one that checks a key.
func isOfKey(r tabletest.Request) bool {
	return slices.ContainsFunc(r.Accesses, func(a tabletest.Access) bool {
		return slices.ContainsFunc(a.Partitions, func(p string) bool { return strings.HasPrefix(p, "KEY#") })
	})
}

// wrong reports whether the response discloses the key, and which requests to DynamoDB are not
// allowed:
//   - to check a key, any request but for that key's own item, and any request at all if the text
//     is no key;
//   - for the rest, any partition, in keys, start keys and written items, that does not belong to
//     the organization whose key was sent; and any request at all for a request that is refused or
//     has no route;
//   - any request that the policy of the function that sends it does not allow.
func (k *keyring) wrong(r request, got answer) (wrong []string) {
	key, wellFormed := keyIn(r)
	k.mu.Lock()
	org := k.organizations[key]
	k.sent[r.headers["Authorization"]] = true
	k.mu.Unlock()
	say := func(request tabletest.Request, why string, a ...any) {
		wrong = append(wrong, fmt.Sprintf("DynamoDB was asked, %s: %.1000s", fmt.Sprintf(why, a...), shapes([]tabletest.Request{request})[0]))
	}
	if len(key) >= 35 && strings.Contains(fmt.Sprint(got.headers, got.body), string(key[3:35])) {
		wrong = append(wrong, "the answer holds the key")
	}
	for _, asked := range got.authentication {
		if !wellFormed {
			say(asked, "for what is not a key")
		}
		if len(asked.StartKey) > 0 {
			say(asked, "from a start key")
		}
		for _, access := range asked.Accesses {
			if !slices.Equal(access.Partitions, []string{keyPartition(key)}) {
				say(asked, "for another item than that of the key sent, %s", keyPartition(key))
			}
		}
		if problem := deployed().lacks("AuthorizerFunction", asked); problem != "" {
			say(asked, "%s", problem)
		}
	}
	f, e := routed(r.method, r.path)
	for _, asked := range got.operation {
		switch {
		case f == nil:
			say(asked, "for a path and method that are no route")
			continue
		case org == "":
			say(asked, "without a key of any organization")
			continue
		case got.status == http.StatusUnauthorized || got.status == http.StatusForbidden:
			say(asked, "for a request that was refused")
		}
		for _, partition := range partitionsOf(asked) {
			if partition == "REPORTING" { // the state of reporting, of which the policies allow a retry a read
				continue
			}
			if own := orgPartition(org); partition != own && !strings.HasPrefix(partition, own+"#") {
				say(asked, "for the partition %q, which is not one of organization %q", partition, org)
			}
		}
		if problem := deployed().lacks(f.name, asked); problem != "" {
			say(asked, "%s", problem)
		}
	}
	if f != nil && got.status < 400 && (org == "" || e.parameters(r.path)["orgId"] != org) {
		wrong = append(wrong, fmt.Sprintf("status %d for a key of %q", got.status, org))
	}
	return wrong
}

// partitionsOf are all partition keys in a request: those requested, those of start keys, and those
// written. A request for every partition has an empty one.
func partitionsOf(asked tabletest.Request) (all []string) {
	for _, access := range asked.Accesses {
		if len(access.Partitions) == 0 {
			all = append(all, "")
		}
		all = append(all, access.Partitions...)
	}
	for _, partition := range asked.StartKey {
		all = append(all, partition)
	}
	for _, partition := range asked.Written {
		// The shards of byWork hold the work of all organizations. No operation reads them.
		if !strings.HasPrefix(partition, "WORK#") {
			all = append(all, partition)
		}
	}
	return all
}

// wantNoKeyLogged checks that no log line contains a key that was made or sent, nor its secret
// part.
func (a *api) wantNoKeyLogged(t testing.TB) {
	a.keys.mu.Lock()
	defer a.keys.mu.Unlock()
	secrets := []string{}
	for key := range a.keys.organizations {
		secrets = append(secrets, string(key[3:35]))
	}
	for header := range a.keys.sent {
		if _, key, _ := strings.Cut(strings.Trim(header, " \t"), " "); len(key) > 20 {
			secrets = append(secrets, key)
		}
	}
	for _, log := range []*logLines{a.log, a.keyLog} {
		text := log.String()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the log holds the key %s", secret)
			}
		}
	}
}
