package awscall

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
)

// Secrets reads secrets of AWS Secrets Manager. It implements reporting.Secrets.
//
// A secret is needed once in an hour, for a token. So it is held for a minute only: if it was
// changed, a refused token is followed by a new secret.
type Secrets struct {
	Client   *Client
	Endpoint string // empty is that of the secret's Region

	mu   sync.Mutex
	held map[string]heldSecret
}

type heldSecret struct {
	value string
	until time.Time
}

const (
	secretAge = time.Minute
	// maxHeldSecrets bounds the memory: a secret has up to 64 KB.
	maxHeldSecrets = 128
)

// secretARN has the Region of a secret. The Region is a part of the host's name.
var secretARN = regexp.MustCompile(`^arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret:.+$`)

// Secret returns the text of a secret. Its errors hold no secret.
func (s *Secrets) Secret(ctx context.Context, arn string) (string, error) {
	s.mu.Lock()
	held, ok := s.held[arn]
	s.mu.Unlock()
	if ok && s.Client.Now().Before(held.until) {
		return held.value, nil
	}
	value, err := s.read(ctx, arn)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil || len(s.held) >= maxHeldSecrets {
		s.held = map[string]heldSecret{}
	}
	s.held[arn] = heldSecret{value, s.Client.Now().Add(secretAge)}
	return value, nil
}

// Forget lets the next Secret read the secret again.
func (s *Secrets) Forget(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, arn)
}

// read calls GetSecretValue. Source: the Secrets Manager API reference.
func (s *Secrets) read(ctx context.Context, arn string) (string, error) {
	region := secretARN.FindStringSubmatch(arn)
	if region == nil {
		return "", errors.New("it is not named by an ARN of Secrets Manager")
	}
	call := Call{
		URL: s.Endpoint, Service: "secretsmanager", Region: region[1],
		ContentType: "application/x-amz-json-1.1", Target: "secretsmanager.GetSecretValue",
	}
	if call.URL == "" {
		call.URL = endpoint("secretsmanager", region[1])
	}
	var out struct{ SecretString *string }
	err := s.Client.JSON(ctx, call, map[string]string{"SecretId": arn}, &out)
	if refused, ok := errors.AsType[*Error](err); ok && !refused.Temporary() || errors.Is(err, ErrCredentials) {
		return "", fmt.Errorf("Secrets Manager: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("%w: Secrets Manager: %w", reporting.ErrSecretUnavailable, err)
	}
	if out.SecretString == nil {
		return "", errors.New("it is binary, and must be a text")
	}
	return *out.SecretString, nil
}
