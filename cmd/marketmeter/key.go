package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

var keyCommands = []cli.Command{
	{Name: "create", Does: "make a key, and show it once", Run: createKey},
	{Name: "list", Does: "list the keys of an organization", Run: listKeys},
	{Name: "rotate", Does: "make a key that replaces another, which stays valid for a while", Run: rotateKey},
	{Name: "revoke", Does: "end a key now", Run: revokeKey},
}

func keys(ctx context.Context, p cli.Program, args []string) error {
	p.Stderr = auth.Redacting{To: p.Stderr}
	if status := p.Dispatch(ctx, keyCommands, args); status != 0 {
		return cli.ExitStatus(status)
	}
	return nil
}

func createKey(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	record := auth.Record{Scopes: auth.Read | auth.Write}
	flags.StringVar(&record.Organization, "org", "", "the `organization` that the key is for; required")
	cli.Var(flags, &record.Scopes, "scope", "what the key may do: `scopes`, separated by commas, out of read, write, config, admin (default read,write)", auth.ParseScopes)
	lifetime := auth.DefaultLifetime
	cli.Var(flags, &lifetime, "expires", "how long the key is valid: a `span` like 90d or 12h, or never (default 90d)", cli.ParseLifetime)
	flags.StringVar(&record.Label, "label", "", "a `text` for people, to know the key by")
	if err := p.ParseFlags(flags, args); err != nil {
		return err
	}
	if _, err := parseOrg(metering.ParseOrgID, record.Organization); err != nil {
		return err
	}
	if holdsKey(record.Label) {
		return cli.UsageError("--label holds a key, which must not be stored")
	}
	if err := auth.CheckLabel(record.Label); err != nil {
		return cli.UsageError(fmt.Sprintf("--label is %s: %v", metering.Quote(record.Label), err))
	}
	ring, err := openKeyring(ctx, p)
	if err != nil {
		return err
	}
	key, err := ring.Create(ctx, &record, lifetime, time.Now())
	if err != nil {
		return err
	}
	return showKey(p, key, &record, fmt.Sprintf("Made %s.", record.Describe()))
}

func listKeys(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	orgText := flags.String("org", "", "the `organization`; required")
	if err := p.ParseFlags(flags, args); err != nil {
		return err
	}
	org, err := parseOrg(metering.StoredOrgID, *orgText)
	if err != nil {
		return err
	}
	tbl, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return err
	}
	records, err := tbl.APIKeys(ctx, org)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		_, err = fmt.Fprintf(p.Stdout, "Organization %s has no keys; `marketmeter key create --org %s` makes one.\n",
			metering.Quote(*orgText), stack.ShellWord(*orgText))
	} else {
		err = auth.WriteList(p.Stdout, records, time.Now())
	}
	if err != nil {
		return fmt.Errorf("the list could not be written whole: %w", err)
	}
	return nil
}

func rotateKey(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	keep := 24 * time.Hour
	cli.Var(flags, &keep, "keep", "how long the old key stays valid, unless it ends sooner: a `span` like 24h, 7d or 0h (default 24h)", cli.ParseSpan)
	lifetime := auth.LikeTheOld
	cli.Var(flags, &lifetime, "expires", "how long the key is valid: a `span` like 90d or 12h, or never (default 90d, or never if the old key never expires)", cli.ParseLifetime)
	orgText := flags.String("org", "", "the `organization` that the key is of; required")
	ids, err := p.ParseMixed(flags, args)
	if err != nil {
		return err
	}
	org, err := parseOrg(metering.StoredOrgID, *orgText)
	if err != nil {
		return err
	}
	ring, hash, err := findKey(ctx, p, org, ids)
	if err != nil {
		return err
	}
	old, err := ring.Read(ctx, org, hash)
	if err != nil {
		return withKeyHint(err, org)
	}
	key, record, err := ring.Rotate(ctx, &old, keep, lifetime, time.Now())
	if err != nil {
		return withKeyHint(err, org)
	}
	return showKey(p, key, &record, fmt.Sprintf("Made %s.\n%s", record.Describe(), old.DescribeRotation(keep)))
}

func revokeKey(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	orgText := flags.String("org", "", "the `organization` that the key is of; required with ID")
	audit := flags.String("from-audit", "", "revoke what the audit lines in a `file` revoked, or - for standard input")
	ids, err := p.ParseMixed(flags, args)
	if err != nil {
		return err
	}
	if *audit != "" {
		if len(ids) > 0 {
			return cli.UsageError("it takes --from-audit or an ID, not both")
		}
		return revokeFromAudit(ctx, p, *audit, *orgText)
	}
	org, err := parseOrg(metering.StoredOrgID, *orgText)
	if err != nil {
		return err
	}
	ring, hash, err := findKey(ctx, p, org, ids)
	if err != nil {
		return err
	}
	record, changed, err := ring.Revoke(ctx, org, hash, time.Now())
	if err != nil {
		return withKeyHint(err, org)
	}
	if _, err := fmt.Fprintln(p.Results(), record.DescribeRevocation(changed)); err != nil {
		return fmt.Errorf("the key %s is revoked, which could not be written to standard output: %w", record.Hash.ID(), err)
	}
	return nil
}

func revokeFromAudit(ctx context.Context, p cli.Program, file, org string) error {
	if org != "" {
		if _, err := parseOrg(metering.StoredOrgID, org); err != nil {
			return err
		}
	}
	from, err := p.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	ring, err := openKeyring(ctx, p)
	if err != nil {
		return err
	}
	lines, err := transfer.NewLineReader(ctx, from)
	if err != nil && !errors.Is(err, transfer.ErrNoText) { // a damaged line stops no other
		return err
	}
	replay := auth.Replay{Keyring: ring, Organization: org, Now: time.Now, Out: p.Results(), Err: p.Stderr}
	counts, err := replay.Lines(ctx, lines)
	if err == nil && counts.Failed > 0 {
		return cli.ExitStatus(1)
	}
	return err
}

// findKey finds the key of the organization that the single element of ids names.
func findKey(ctx context.Context, p cli.Program, org metering.OrgID, ids []string) (*auth.Keyring, auth.Hash, error) {
	if len(ids) != 1 {
		return nil, auth.Hash{}, cli.UsageError(fmt.Sprintf("it takes one ID of a key; there are %d", len(ids)))
	}
	if err := auth.CheckKeyName(ids[0]); err != nil {
		return nil, auth.Hash{}, cli.UsageError("the ID is invalid: " + err.Error())
	}
	ring, err := openKeyring(ctx, p)
	if err != nil {
		return nil, auth.Hash{}, err
	}
	hash, err := ring.Find(ctx, org, ids[0])
	return ring, hash, withKeyHint(err, org)
}

// withKeyHint adds to an error the command that helps.
func withKeyHint(err error, org metering.OrgID) error {
	switch {
	case metering.CodeOf(err) == metering.NotFound:
		return fmt.Errorf("%w: `marketmeter key list --org %s` shows those that it has; a key that is not listed can be named "+
			"by its whole hash or by the key itself", err, stack.ShellWord(string(org)))
	case errors.Is(err, auth.ErrNotRotatable):
		return fmt.Errorf("%w: make a new one with `marketmeter key create --org %s`", err, stack.ShellWord(string(org)))
	}
	return err
}

// openKeyring opens the keys in the table that a command acts on.
func openKeyring(ctx context.Context, p cli.Program) (*auth.Keyring, error) {
	t, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return nil, err
	}
	return t.Keyring(ctx, logger(p))
}

// showKey prints the sentences and then the key, alone on the last line. If that fails, nobody has
// the key although it exists, and the error says so.
func showKey(p cli.Program, key auth.Key, record *auth.Record, sentences string) error {
	_, err := fmt.Fprintf(p.Results(), "%s\nThis is the only time that the key is shown, and it is stored nowhere. Keep it as you keep a password:\n%s\n", sentences, key)
	if err != nil {
		return fmt.Errorf("the key %s has been made and could not be shown: %w; end it with `marketmeter key revoke --org %s %s`",
			record.Hash.ID(), err, stack.ShellWord(record.Organization), record.Hash.ID())
	}
	return nil
}
