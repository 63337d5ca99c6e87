package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
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

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table"
)

// stack is a table in a DynamoDB that is reached at an address of its own: DynamoDB Local's, as a rule.
type stack struct {
	endpoint, table, region, accessKeyID, secretAccessKey, sessionToken string
}

const defaultTable = "marketmeter"

// stackAt is the stack at endpoint. What the environment does not say of it is as DynamoDB Local takes it.
func stackAt(endpoint string, getenv func(string) string) stack {
	s := stack{
		endpoint:        endpoint,
		table:           cmp.Or(getenv("TABLE_NAME"), defaultTable),
		region:          cmp.Or(getenv("AWS_REGION"), localdb.Region),
		accessKeyID:     localdb.AccessKeyID,
		secretAccessKey: localdb.SecretAccessKey,
	}
	if id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"); id != "" && secret != "" {
		s.accessKeyID, s.secretAccessKey, s.sessionToken = id, secret, getenv("AWS_SESSION_TOKEN")
	}
	return s
}

// ownStack is the stack at the address of a DynamoDB Local that this program started. The credentials
// of the environment are for elsewhere: DynamoDB Local takes letters and digits alone.
func ownStack(db *localdb.DB, getenv func(string) string) stack {
	s := stackAt(db.Endpoint, func(string) string { return "" })
	s.table = cmp.Or(getenv("TABLE_NAME"), defaultTable)
	return s
}

func (s stack) client(d deadlines) *dynamodb.Client {
	return dynamoclient.New(dynamoclient.Options{
		Region:      s.region,
		Endpoint:    s.endpoint,
		Credentials: s.credentials(),
		Transport:   dynamoclient.NewTransport(d.attempt),
		Call:        d.call,
		Explain:     s.at().explain,
	})
}

func (s stack) at() tableAt { return tableAt{s.table, s.region, s.endpoint} }

func (s stack) credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(s.accessKeyID, s.secretAccessKey, s.sessionToken)
}

func (s stack) open(d deadlines) *target {
	return &target{table.New(s.client(d), s.table), s.table, s.endpoint, s.credentials()}
}

// target is the table that a command acts on.
type target struct {
	*table.Table
	name, at    string // at is the endpoint or, in AWS, the region
	credentials aws.CredentialsProvider
}

// variables are what a program needs in its environment to act on the stack.
func (s stack) variables() []variable {
	all := []variable{
		{"DYNAMODB_ENDPOINT", s.endpoint},
		{"TABLE_NAME", s.table},
		{"AWS_REGION", s.region},
		{"AWS_ACCESS_KEY_ID", s.accessKeyID},
		{"AWS_SECRET_ACCESS_KEY", s.secretAccessKey},
	}
	if s.sessionToken != "" { // only temporary credentials have one
		all = append(all, variable{"AWS_SESSION_TOKEN", s.sessionToken})
	}
	return all
}

// deadlines bound a call to DynamoDB: each attempt until the end of its response, and all attempts together.
type deadlines struct{ attempt, call time.Duration }

var (
	// A command has longer than a function: DynamoDB Local takes seconds over a group of a hundred thousand
	// numbers, and a page of an export, 1 MB, may come over a link of 50 KB a second. What stalls is tried
	// three times.
	forCommands = deadlines{20 * time.Second, time.Minute}
	// The server has the time of the request that waits, for as many attempts; its http.Server has longer.
	forServer = deadlines{9 * time.Second, requestTimeout}
)

type variable struct{ name, value string }

// localDir is the folder of everything that is local to a checkout: LOCAL_DIR, or .local. In it are
// DynamoDB Local (which LOCAL_JARS puts elsewhere, to share one among several folders), its data, and
// the file env, which names the running stack to the other commands.
func localDir(getenv func(string) string) string { return cmp.Or(getenv("LOCAL_DIR"), ".local") }

func jarsDir(getenv func(string) string) string {
	return cmp.Or(getenv("LOCAL_JARS"), localDir(getenv))
}

func envFile(getenv func(string) string) string { return filepath.Join(localDir(getenv), "env") }

// writeEnv writes one NAME=value a line, for a shell to read; the whole file or none of it. Only its
// owner can read it: the credentials may be real ones.
func writeEnv(file string, variables []variable) error {
	var text bytes.Buffer
	for _, v := range variables {
		fmt.Fprintf(&text, "%s=%s\n", v.name, shellWord(v.value))
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

// shellWord quotes a value where a shell would read more than itself in it.
func shellWord(value string) string {
	if plainWord.MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// readEnv reads what writeEnv wrote, as a shell would.
func readEnv(file string) (map[string]string, error) {
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

// openTable opens the table that a command acts on: the one that the environment names, by
// DYNAMODB_ENDPOINT or, in AWS, by TABLE_NAME; else the one of the local stack that runs here, which it
// says.
func openTable(ctx context.Context, p program) (*target, error) {
	if endpoint := p.getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("DYNAMODB_ENDPOINT is %q: it must be a URL, as in http://127.0.0.1:8000", endpoint)
		}
		t := stackAt(endpoint, p.getenv).open(forCommands)
		fmt.Fprintf(p.stderr, "table %s at %s, from DYNAMODB_ENDPOINT\n", t.name, t.at)
		return t, nil
	}
	if name := p.getenv("TABLE_NAME"); name != "" {
		within, cancel := context.WithTimeout(ctx, forCommands.call)
		defer cancel()
		t, err := openInAWS(within, name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(p.stderr, "table %s in AWS region %s\n", t.name, t.at)
		return t, nil
	}
	file := envFile(p.getenv)
	variables, err := readEnv(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("which table? Set TABLE_NAME (with the AWS credentials and region of it, " +
			"or with DYNAMODB_ENDPOINT), or run this where `make run` runs: there is no " + file + " here")
	}
	if err != nil {
		return nil, err
	}
	s := stackAt(variables["DYNAMODB_ENDPOINT"], func(name string) string { return variables[name] })
	if err := listens(s.endpoint); err != nil {
		return nil, fmt.Errorf("the local stack of %s does not run (%w): start it with `make run`, or set TABLE_NAME", file, err)
	}
	fmt.Fprintf(p.stderr, "table %s at %s, from %s\n", s.table, s.endpoint, file)
	return s.open(forCommands), nil
}

// hostLabel is what a region must be: a part of the host's name.
var hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// openInAWS opens a table with what the AWS SDK finds in the environment and in its files.
func openInAWS(ctx context.Context, name string) (*target, error) {
	metadata := new(ec2Metadata)
	// A credentials service on the network is waited for no longer than the table.
	found, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(forCommands.attempt)),
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
	at := tableAt{name: name, region: found.Region}
	client := dynamoclient.New(dynamoclient.Options{
		Region: found.Region, Credentials: found.Credentials,
		Transport: dynamoclient.NewTransport(forCommands.attempt), Call: forCommands.call, Explain: at.explain,
	})
	return &target{table.New(client, name), name, found.Region, found.Credentials}, nil
}

// ec2Metadata asks the metadata service of EC2, which is the last place that the SDK looks for credentials at.
// Outside of EC2 nothing may respond there; within, it takes milliseconds. So a lookup has a second, and
// not the SDK's five.
type ec2Metadata struct{ client *imds.Client }

func (m *ec2Metadata) GetMetadata(ctx context.Context, in *imds.GetMetadataInput, options ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := m.client.GetMetadata(ctx, in, options...)
	if err != nil && ctx.Err() != nil {
		// Not wrapped: a service that does not exist is no service that is late.
		err = errors.New("the metadata service of EC2 did not respond within a second")
	}
	return out, err
}

// listens fails where nothing takes connections at the endpoint.
func listens(endpoint string) error {
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
