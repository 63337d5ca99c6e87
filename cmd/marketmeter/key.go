package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
)

var keyCommands = []command{
	{"create", "make a key, and show it once", createKey},
	{"list", "list the keys of an organization", listKeys},
	{"rotate", "make a key in place of another, which goes on for a while", rotateKey},
	{"revoke", "end a key now", revokeKey},
}

const keyHelp = `
A client sends a key with every request, as "Authorization: Key KEY". It lets the client act in one
organization, as far as its scopes go:

  read    list usage record groups, validate batches, read the config
  write   delete usage record groups, validate batches
  config  read and change the config
  admin   everything

Only a key's hash is stored: what was not kept when it was shown is lost. In logs and lists a key goes
by its id, which gives nothing away. Each change leaves a line of JSON on standard error: what, who, when.

The table is the one that TABLE_NAME names, in AWS or at DYNAMODB_ENDPOINT, or else that of the local
stack that runs in this folder.
`

func keys(ctx context.Context, p program, args []string) error {
	p.stderr = redacting{p.stderr}
	if status := p.dispatch(ctx, "marketmeter key", keyHelp, keyCommands, args); status != 0 {
		return exitStatus(status)
	}
	return nil
}

// redacting removes keys from the output, such as a key in a command line that an error quotes.
// Each Write must be a whole message.
type redacting struct{ to io.Writer }

func (r redacting) Write(text []byte) (int, error) {
	if _, err := io.WriteString(r.to, auth.Redact(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

const createKeyHelp = `
usage: marketmeter key create --org ORG [--scope SCOPES] [--expires SPAN] [--label TEXT]

Makes a key for organization ORG. The key is the last line of standard output and nowhere else: it is
shown this once.

`

func createKey(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("create", flag.ContinueOnError)
	record := auth.Record{Scopes: auth.Read | auth.Write}
	flags.StringVar(&record.Organization, "org", "", "the `organization` that the key is for; required")
	flags.Func("scope", "what the key may do: `scopes`, separated by commas, out of read, write, config, admin (default read,write)", func(text string) (err error) {
		record.Scopes, err = auth.ParseScopes(text)
		return err
	})
	lifetime := auth.DefaultLifetime
	lifetimeFlag(flags, &lifetime, "90d")
	flags.StringVar(&record.Label, "label", "", "a `text` for people, to know the key by")
	if err := p.parse(flags, createKeyHelp, args); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	if err := checkKeyOrg(record.Organization, checkOrg); err != nil {
		return err
	}
	if holdsKey(record.Label) {
		return usageError("--label holds a key, which must not be stored")
	}
	if err := auth.CheckLabel(record.Label); err != nil {
		return usageError(fmt.Sprintf("--label is %s: %v", metering.Quote(record.Label), err))
	}
	ring, err := p.openKeyring(ctx)
	if err != nil {
		return err
	}
	key, err := ring.Create(ctx, &record, lifetime, time.Now())
	if err != nil {
		return err
	}
	return p.showKey(key, &record, fmt.Sprintf("Made %s.", describe(&record)))
}

// checkKeyOrg accepts an organization id. It refuses a key, which would be printed and logged.
func checkKeyOrg(org string, check func(string) error) error {
	if holdsKey(org) {
		return usageError("--org holds a key: it must be the organization")
	}
	return check(org)
}

func holdsKey(text string) bool { return auth.Redact(text) != text }

const listKeysHelp = `
usage: marketmeter key list --org ORG

Lists all keys of organization ORG that there ever were, oldest first. Times are in UTC; the last use is
shown to the hour.

STATE is active, expired, revoked or unreadable. It also names what is stored of a key and cannot be read,
because it is damaged or a newer version wrote it, and what this version does not know. A key of which
something cannot be read lets nobody in; "marketmeter key revoke" ends it. A scope that is not known allows
nothing. The exit status is 0 if all keys are listed, those too.

`

func listKeys(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("list", flag.ContinueOnError)
	org := flags.String("org", "", "the `organization`; required")
	if err := p.parse(flags, listKeysHelp, args); err != nil {
		return err
	}
	if err := noArguments(flags); err != nil {
		return err
	}
	if err := checkKeyOrg(*org, checkStoredOrg); err != nil {
		return err
	}
	tbl, err := p.openTable(ctx)
	if err != nil {
		return err
	}
	records, err := tbl.APIKeys(ctx, metering.OrgID(*org))
	if err != nil {
		return err
	}
	if len(records) == 0 {
		_, err = fmt.Fprintf(p.stdout, "Organization %s has no keys; `marketmeter key create --org %s` makes one.\n",
			metering.Quote(*org), stack.ShellWord(*org))
	} else {
		err = auth.WriteList(p.stdout, records, time.Now())
	}
	if err != nil {
		return fmt.Errorf("the list is not written whole: %w", err)
	}
	return nil
}

const rotateKeyHelp = `
usage: marketmeter key rotate --org ORG [--keep SPAN] [--expires SPAN] ID

Makes a key with the scopes and the label of the key ID of organization ORG, and lets that one end
after a while, in which clients change from one to the other. The new key is the last line of standard
output and nowhere else: it is shown this once.

` + keyIDHelp

const keyIDHelp = `ID is what "marketmeter key list" shows, or the first digits of it, at least 4, or the key's whole hash,
64 digits, or the key itself. By hash or key a key is found that is not listed.

`

func rotateKey(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("rotate", flag.ContinueOnError)
	keep := 24 * time.Hour
	flags.Func("keep", "how long the old key goes on, unless it ends sooner anyway: a `span` like 24h, 7d or 0h (default 24h)", func(text string) (err error) {
		keep, err = parseSpan(text)
		return err
	})
	lifetime := auth.LikeTheOld
	lifetimeFlag(flags, &lifetime, "90d, or never where the old key never expires")
	org := flags.String("org", "", "the `organization` that the key is of; required")
	ids, err := p.parseKeyIDs(flags, rotateKeyHelp, args)
	if err != nil {
		return err
	}
	ring, hash, err := p.findKey(ctx, *org, ids)
	if err != nil {
		return err
	}
	old, err := ring.Read(ctx, metering.OrgID(*org), hash)
	if err != nil {
		return withKeyHint(err, *org)
	}
	key, record, err := ring.Rotate(ctx, &old, keep, lifetime, time.Now())
	if err != nil {
		return withKeyHint(err, *org)
	}
	sentences := fmt.Sprintf("Made %s.\nThe old key %s ends at %s.", describe(&record), old.Hash.ID(), metering.FormatTime(old.ExpiryTime))
	if keep < gatewayLag { // API Gateway may still cache the old end of the key
		sentences += fmt.Sprintf(" In AWS, API Gateway may let it in for up to %d seconds from now.", gatewayLag/time.Second)
	}
	return p.showKey(key, &record, sentences)
}

const revokeKeyHelp = `
usage: marketmeter key revoke --org ORG ID
       marketmeter key revoke --from-audit FILE [--org ORG]

Ends the key ID of organization ORG now and for good. That a key has been revoked already is no failure, nor
that what is stored of it cannot be read.

` + keyIDHelp + auditHelp

func revokeKey(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("revoke", flag.ContinueOnError)
	org := flags.String("org", "", "the `organization` that the key is of; required with ID")
	audit := flags.String("from-audit", "", "revoke what the audit lines in a `file` revoked, or - for standard input")
	ids, err := p.parseKeyIDs(flags, revokeKeyHelp, args)
	if err != nil {
		return err
	}
	if *audit != "" {
		if len(ids) > 0 {
			return usageError("it takes --from-audit or an ID, not both")
		}
		return revokeFromAudit(ctx, p, *audit, *org)
	}
	ring, hash, err := p.findKey(ctx, *org, ids)
	if err != nil {
		return err
	}
	record, changed, err := ring.Revoke(ctx, metering.OrgID(*org), hash, time.Now())
	if err != nil {
		return withKeyHint(err, *org)
	}
	sentence := fmt.Sprintf("Revoked key %s of organization %s,%s. In AWS, API Gateway may let it in for up to %d seconds more; the local server refuses it at once.",
		record.Hash.ID(), metering.Quote(record.Organization), atTime(record.RevocationTime), gatewayLag/time.Second)
	if !changed {
		sentence = fmt.Sprintf("Key %s was revoked before,%s by %s: nothing has changed.", record.Hash.ID(), atTime(record.RevocationTime), auth.Printable(record.RevokedBy))
	}
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	if _, err := fmt.Fprintln(p.stdout, sentence); err != nil {
		return fmt.Errorf("the key %s is revoked, which could not be written to standard output: %w", record.Hash.ID(), err)
	}
	return nil
}

// findKey finds the key of the organization that the single element of ids names.
func (p program) findKey(ctx context.Context, org string, ids []string) (*auth.Keyring, auth.Hash, error) {
	if len(ids) != 1 {
		return nil, auth.Hash{}, usageError(fmt.Sprintf("it takes one ID of a key; there are %d", len(ids)))
	}
	if err := checkKeyID(ids[0]); err != nil {
		return nil, auth.Hash{}, err
	}
	if err := checkKeyOrg(org, checkStoredOrg); err != nil {
		return nil, auth.Hash{}, err
	}
	ring, err := p.openKeyring(ctx)
	if err != nil {
		return nil, auth.Hash{}, err
	}
	hash, err := ring.Find(ctx, metering.OrgID(org), ids[0])
	return ring, hash, withKeyHint(err, org)
}

// withKeyHint adds to an error the command that helps.
func withKeyHint(err error, org string) error {
	switch {
	case metering.CodeOf(err) == metering.NotFound:
		return fmt.Errorf("%w: `marketmeter key list --org %s` shows those that it has; a key that is not listed can be named "+
			"by its whole hash or by the key itself", err, stack.ShellWord(org))
	case errors.Is(err, auth.ErrNotRotatable):
		return fmt.Errorf("%w: make a new one with `marketmeter key create --org %s`", err, stack.ShellWord(org))
	}
	return err
}

// openKeyring opens the keys in the table that a command acts on.
func (p program) openKeyring(ctx context.Context) (*auth.Keyring, error) {
	t, err := p.openTable(ctx)
	if err != nil {
		return nil, err
	}
	return t.Keyring(ctx, p.log())
}

// atTime returns " at " and the time, or an empty string for the zero time.
func atTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + metering.FormatTime(t)
}

// gatewayLag is how long API Gateway caches the authorizer's result for a key: ReauthorizeEvery in
// template.yaml.
const gatewayLag = 60 * time.Second

// describe names a new key and says what it allows.
func describe(r *auth.Record) string {
	until := "it never expires"
	if !r.ExpiryTime.IsZero() {
		until = "it expires at " + metering.FormatTime(r.ExpiryTime)
	}
	labelled := ""
	if r.Label != "" {
		labelled = fmt.Sprintf(", labelled %q", r.Label)
	}
	return fmt.Sprintf("key %s of organization %s%s; its scopes are %s; %s",
		r.Hash.ID(), metering.Quote(r.Organization), labelled, r.Scopes, until)
}

// showKey prints the sentences and then the key, alone on the last line. If that fails, nobody has
// the key although it exists, and the error says so.
func (p program) showKey(key auth.Key, record *auth.Record, sentences string) error {
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	_, err := fmt.Fprintf(p.stdout, "%s\nThis is the only time that the key is shown, and it is stored nowhere. Keep it as you keep a password:\n%s\n", sentences, key)
	if err != nil {
		return fmt.Errorf("the key %s has been made and could not be shown: %w; end it with `marketmeter key revoke --org %s %s`",
			record.Hash.ID(), err, stack.ShellWord(record.Organization), record.Hash.ID())
	}
	return nil
}

// noArguments refuses arguments without repeating them: one might be a key.
func noArguments(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return usageError("it takes flags alone, as in --org ORG, and there is more")
	}
	return nil
}

// parseKeyIDs reads flags, and key ids before, between and after them.
func (p program) parseKeyIDs(flags *flag.FlagSet, text string, args []string) (ids []string, err error) {
	for {
		if err := p.parse(flags, text, args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return ids, nil
		}
		ids, args = append(ids, flags.Arg(0)), flags.Args()[1:]
	}
}

// checkKeyID accepts the digits of an id, a hash or a key. Its error never repeats the text, which
// may be a secret with a typo.
func checkKeyID(text string) error {
	if !auth.NamesKey(text) {
		return usageError(fmt.Sprintf("what stands for ID is none: it must be %d to %d digits of 0-9 and a-f, as `marketmeter key list` shows them, the %d digits of the whole hash, or the key itself",
			auth.MinIDDigits, auth.MaxIDDigits, len(auth.Hash{}.String())))
	}
	return nil
}

func lifetimeFlag(flags *flag.FlagSet, lifetime *time.Duration, otherwise string) {
	flags.Func("expires", "how long the key is good: a `span` like 90d or 12h, or never (default "+otherwise+")", func(text string) error {
		if text == "never" {
			*lifetime = auth.Forever
			return nil
		}
		span, err := parseSpan(text)
		if err == nil && span == 0 {
			err = errors.New("it must be longer than nothing")
		}
		if err != nil {
			return fmt.Errorf("%w, or never", err)
		}
		*lifetime = span
		return nil
	})
}
