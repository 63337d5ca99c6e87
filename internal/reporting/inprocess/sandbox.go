package inprocess

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Sandbox is a sandbox of the marketplaces. It is the reporting.Secrets of a process on a
// developer's machine: it knows those of its catalog, and there are no others.
type Sandbox struct{ URL string }

// Connector returns what makes the marketplaces of connections to the sandbox alone.
func (s Sandbox) Connector(now func() time.Time) *connect.Connector {
	return connect.New(connect.Options{Secrets: s, SandboxURL: s.URL, SandboxOnly: true, Now: now})
}

// Secret returns the secret of a connection that names none, by its connect.SandboxSecret.
func (s Sandbox) Secret(ctx context.Context, name string) (string, error) {
	catalog, err := s.catalog(ctx)
	if err != nil {
		return "", err
	}
	for _, a := range catalog.Azure.Applications {
		if name == connect.SandboxSecret("AZURE", a.ClientID) {
			return a.ClientSecret, nil
		}
	}
	if accounts := catalog.Google.ServiceAccounts; len(accounts) > 0 && name == connect.SandboxSecret("GCP", "") {
		return serviceAccountKey(accounts[0].Email)
	}
	return "", errors.New("there is no Secrets Manager on this machine: leave secretArn out, for the secret that the catalog of the sandbox has of the connection's clientID or of its first service account")
}

// catalogTimeout bounds a request for the catalog, which is on this machine.
const catalogTimeout = 10 * time.Second

func (s Sandbox) catalog(ctx context.Context) (c sandbox.Catalog, err error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/control/catalog", nil)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, fmt.Errorf("the sandbox does not respond: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return c, fmt.Errorf("the sandbox at %s responds with status %d", s.URL, response.StatusCode)
	}
	if err := json.NewDecoder(response.Body).Decode(&c); err != nil {
		return c, fmt.Errorf("what responds at %s is no sandbox: %w", s.URL, err)
	}
	return c, nil
}

// Check returns an error if no sandbox responds at a loopback address.
func (s Sandbox) Check(ctx context.Context) error {
	if !IsLoopback(s.URL) {
		return fmt.Errorf("%s is not at a loopback address", s.URL)
	}
	_, err := s.catalog(ctx)
	return err
}

// IsLoopback reports whether the URL is of a loopback address, or of localhost.
func IsLoopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// privateKey is a key of RSA. The sandbox checks that a key was used, not which.
var privateKey = sync.OnceValues(func() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return text.String(), err
})

// serviceAccountKey returns a key of the service account, as Google exports it.
func serviceAccountKey(email string) (string, error) {
	key, err := privateKey()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]string{"type": "service_account", "client_email": email, "private_key_id": "1", "private_key": key})
	return string(text), err
}
