// Package stack finds the table that a command acts on: the one that the environment names, in AWS
// or at an endpoint, or that of the local stack, which its file env names. It explains in a
// sentence why a table can't be reached or used, and identifies the operator.
package stack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table"
)

// Stack is a table in a DynamoDB at an endpoint, usually DynamoDB Local.
type Stack struct {
	Endpoint, Table, Region, AccessKeyID, SecretAccessKey, SessionToken string
}

const defaultTable = "marketmeter"

// At returns the stack at endpoint. Variables that the environment does not have get values that
// DynamoDB Local accepts.
func At(endpoint string, getenv func(string) string) Stack {
	s := Stack{
		Endpoint:        endpoint,
		Table:           cmp.Or(getenv("TABLE_NAME"), defaultTable),
		Region:          cmp.Or(getenv("AWS_REGION"), localdb.Region),
		AccessKeyID:     localdb.AccessKeyID,
		SecretAccessKey: localdb.SecretAccessKey,
	}
	if id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		s.AccessKeyID, s.SecretAccessKey, s.SessionToken = id, secret, getenv("AWS_SESSION_TOKEN")
	}
	return s
}

// Own returns the stack at the address of a DynamoDB Local that this program started. It does not
// use the environment's credentials, which are for another DynamoDB: DynamoDB Local accepts only
// letters and digits.
func Own(db *localdb.DB, getenv func(string) string) Stack {
	s := At(db.Endpoint, func(string) string { return "" })
	s.Table = cmp.Or(getenv("TABLE_NAME"), defaultTable)
	return s
}

// Client returns a client of the DynamoDB of the stack.
func (s Stack) Client(d Deadlines) *dynamodb.Client {
	return dynamoclient.New(dynamoclient.Options{
		Region:      s.Region,
		Endpoint:    s.Endpoint,
		Credentials: s.credentials(),
		Transport:   dynamoclient.NewTransport(d.Attempt),
		Call:        d.Call,
		Explain:     s.Location().Explain,
	})
}

// Location returns the table's name and location for errors.
func (s Stack) Location() Location { return Location{s.Table, s.Region, s.Endpoint} }

func (s Stack) credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(s.AccessKeyID, s.SecretAccessKey, s.SessionToken)
}

// Open returns the table of the stack; it connects to nothing.
func (s Stack) Open(d Deadlines) *Target {
	return &Target{table.New(s.Client(d), s.Table), s.Table, s.Endpoint, s.credentials(), d.Call}
}

// Target is the table that a command acts on.
type Target struct {
	*table.Table
	Name, At    string // At is the endpoint or, in AWS, the region
	Credentials aws.CredentialsProvider
	timeout     time.Duration // to retrieve the credentials
}

// Variables returns the environment variables that a program needs to act on the stack.
func (s Stack) Variables() []Variable {
	all := []Variable{
		{"DYNAMODB_ENDPOINT", s.Endpoint},
		{"TABLE_NAME", s.Table},
		{"AWS_REGION", s.Region},
		{"AWS_ACCESS_KEY_ID", s.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", s.SecretAccessKey},
	}
	if s.SessionToken != "" { // only temporary credentials have one
		all = append(all, Variable{"AWS_SESSION_TOKEN", s.SessionToken})
	}
	return all
}

// Deadlines bound a call to DynamoDB: each attempt until the end of its response, and all attempts
// together.
type Deadlines struct{ Attempt, Call time.Duration }

// forCommands are the deadlines of a command. They are longer than a function's: DynamoDB Local
// takes seconds for a group of a hundred thousand numbers, and a page of an export, 1 MB, may come
// over a link of 50 KB a second. A request that stalls is attempted three times.
var forCommands = Deadlines{20 * time.Second, time.Minute}

// DeadlinesFor returns the deadlines of a command. DYNAMODB_TIMEOUT is that of a call: longer over
// a slow link, shorter for a script that must not wait.
func DeadlinesFor(getenv func(string) string) (Deadlines, error) {
	text := getenv("DYNAMODB_TIMEOUT")
	if text == "" {
		return forCommands, nil
	}
	call, err := time.ParseDuration(text)
	if err != nil || call < time.Second || call > time.Hour {
		return Deadlines{}, fmt.Errorf("DYNAMODB_TIMEOUT is %q: it must be 1s to 1h, as in 30s or 5m", text)
	}
	return Deadlines{call / 3, call}, nil
}

// Variable is a variable of the environment.
type Variable struct{ Name, Value string }

// LocalDir is the folder of everything that is local to a checkout: LOCAL_DIR, or .local. It has
// DynamoDB Local (unless LOCAL_JARS names another folder, to share it among several), its data, and
// the file env, which names the running stack to the other commands.
func LocalDir(getenv func(string) string) string { return cmp.Or(getenv("LOCAL_DIR"), ".local") }

// JarsDir is the folder into which DynamoDB Local is downloaded: LOCAL_JARS, or that of LocalDir.
func JarsDir(getenv func(string) string) string {
	return cmp.Or(getenv("LOCAL_JARS"), LocalDir(getenv))
}

// EnvFile is the file that names the running stack.
func EnvFile(getenv func(string) string) string { return filepath.Join(LocalDir(getenv), "env") }

// WriteEnv writes one NAME=value per line, for a shell to read; the whole file or none of it. Only
// its owner can read the file: the credentials may be real ones.
func WriteEnv(file string, variables []Variable) error {
	var text bytes.Buffer
	for _, v := range variables {
		fmt.Fprintf(&text, "%s=%s\n", v.Name, ShellWord(v.Value))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), "env-*")
	if err != nil {
		return err
	}
	_, err = part.Write(text.Bytes())
	if err = errors.Join(err, part.Close()); err == nil {
		err = os.Rename(part.Name(), file)
	}
	if err != nil {
		_ = os.Remove(part.Name())
	}
	return err
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]*$`)

// ShellWord quotes a value if a shell would otherwise not read it as one plain word.
func ShellWord(value string) string {
	if plainWord.MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// ReadEnv reads what WriteEnv wrote, as a shell would.
func ReadEnv(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	variables := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, word, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, fmt.Errorf("%s: the line %q is not NAME=value", file, line)
		}
		if unquoted, ok := strings.CutPrefix(word, "'"); ok {
			word = strings.ReplaceAll(strings.TrimSuffix(unquoted, "'"), `'\''`, "'")
		}
		variables[name] = word
	}
	return variables, nil
}

// Open opens the table that a command acts on: the one that the environment names, by
// DYNAMODB_ENDPOINT or, in AWS, by TABLE_NAME. If it names none, Open opens the table of the local
// stack that runs here, and reports this on stderr.
func Open(ctx context.Context, getenv func(string) string, stderr io.Writer) (*Target, error) {
	deadlines, err := DeadlinesFor(getenv)
	if err != nil {
		return nil, err
	}
	if endpoint := getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("DYNAMODB_ENDPOINT is %q: it must be a URL, as in http://127.0.0.1:8000", endpoint)
		}
		t := At(endpoint, getenv).Open(deadlines)
		fmt.Fprintf(stderr, "table %s at %s, from DYNAMODB_ENDPOINT\n", t.Name, t.At)
		return t, nil
	}
	if name := getenv("TABLE_NAME"); name != "" {
		within, cancel := context.WithTimeout(ctx, deadlines.Call)
		defer cancel()
		t, err := openInAWS(within, name, deadlines)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(stderr, "table %s in AWS region %s\n", t.Name, t.At)
		return t, nil
	}
	file := EnvFile(getenv)
	variables, err := ReadEnv(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("which table? Set TABLE_NAME (with the AWS credentials and region of it, " +
			"or with DYNAMODB_ENDPOINT), or run this where `make run` runs: there is no " + file + " here")
	}
	if err != nil {
		return nil, err
	}
	s := At(variables["DYNAMODB_ENDPOINT"], func(name string) string { return variables[name] })
	if err := Listens(s.Endpoint); err != nil {
		return nil, fmt.Errorf("the local stack of %s does not run (%w): start it with `make run`, or set TABLE_NAME", file, err)
	}
	fmt.Fprintf(stderr, "table %s at %s, from %s\n", s.Table, s.Endpoint, file)
	return s.Open(deadlines), nil
}

// hostLabel matches a valid region: a part of the host's name.
var hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// openInAWS opens a table with the settings that the AWS SDK finds in the environment and its
// files.
func openInAWS(ctx context.Context, name string, d Deadlines) (*Target, error) {
	metadata := new(ec2Metadata)
	// The timeout for a credentials service on the network is the same as for the table.
	found, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(d.Attempt)),
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata }))
	if err != nil {
		return nil, fmt.Errorf("the AWS configuration can't be read: check AWS_PROFILE, AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE: %w", err)
	}
	metadata.client = imds.NewFromConfig(found)
	if found.Region == "" {
		return nil, errors.New("which region? Set AWS_REGION, or DYNAMODB_ENDPOINT for a DynamoDB that is not in AWS")
	}
	if !hostLabel.MatchString(found.Region) {
		return nil, fmt.Errorf("the AWS region is %q: it must be the name of one, as in AWS_REGION=eu-central-1", found.Region)
	}
	at := Location{Name: name, Region: found.Region}
	client := dynamoclient.New(dynamoclient.Options{
		Region: found.Region, Credentials: found.Credentials,
		Transport: dynamoclient.NewTransport(d.Attempt), Call: d.Call, Explain: at.Explain,
	})
	return &Target{table.New(client, name), name, found.Region, found.Credentials, d.Call}, nil
}

// ec2Metadata is a client of EC2's metadata service, the last source from which the SDK reads
// credentials. Outside of EC2 nothing may respond there; within, it takes milliseconds. So a lookup
// has a second, not the SDK's five.
type ec2Metadata struct{ client *imds.Client }

func (m *ec2Metadata) GetMetadata(ctx context.Context, in *imds.GetMetadataInput, options ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := m.client.GetMetadata(ctx, in, options...)
	if err != nil && ctx.Err() != nil {
		// Not wrapped: a service that does not exist is not one that is late.
		err = errors.New("the metadata service of EC2 did not respond within a second")
	}
	return out, err
}

// Listens returns an error if nothing accepts connections at the endpoint.
func Listens(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return errors.New("it is not a URL, as in http://127.0.0.1:8000")
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme
	}
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(u.Hostname(), port), 3*time.Second)
	if err != nil {
		return err
	}
	return connection.Close()
}

// Keyring returns a Keyring that changes the keys of the table on behalf of the user of this
// program. It fails if there are no credentials to act with.
func (t *Target) Keyring(ctx context.Context, log *slog.Logger) (*auth.Keyring, error) {
	operator, err := t.Operator(ctx)
	if err != nil {
		return nil, err
	}
	return &auth.Keyring{Store: t.Table, Operator: operator, Table: t.Name, At: t.At, Log: log}, nil
}

// Operator identifies the operator: the user of this machine and, in AWS, the id of the access key.
// The id is no secret, and CloudTrail knows its principal.
func (t *Target) Operator(ctx context.Context) (string, error) {
	name := "uid " + strconv.Itoa(os.Getuid())
	if known, err := user.Current(); err == nil {
		name = known.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	used, err := t.Credentials.Retrieve(ctx)
	if err != nil {
		return "", fmt.Errorf("the AWS credentials: %w", Location{Name: t.Name, Region: t.At}.Explain(&dynamoclient.CredentialsError{Cause: err}))
	}
	if used.AccessKeyID != localdb.AccessKeyID {
		name += " with access key " + used.AccessKeyID
	}
	return name, nil
}
