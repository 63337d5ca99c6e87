package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
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
	flags.Func("scope", "what the key may do: `scopes`, separated by commas, out of read, write, config, admin (default read,write)", func(text string) (err error) {
		record.Scopes, err = auth.ParseScopes(text)
		return err
	})
	lifetime := auth.DefaultLifetime
	lifetimeFlag(flags, &lifetime, "90d")
	flags.StringVar(&record.Label, "label", "", "a `text` for people, to know the key by")
	if err := parseFlagsAlone(p, flags, args); err != nil {
		return err
	}
	if err := checkKeyOrg(metering.ParseOrgID, record.Organization); err != nil {
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

// checkKeyOrg is checkOrg, and refuses a key, which would be printed and logged.
func checkKeyOrg(parse func(string) (metering.OrgID, error), org string) error {
	if holdsKey(org) {
		return cli.UsageError("--org holds a key: it must be the organization")
	}
	return checkOrg(parse, org)
}

func holdsKey(text string) bool { return auth.Redact(text) != text }

func listKeys(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	org := flags.String("org", "", "the `organization`; required")
	if err := parseFlagsAlone(p, flags, args); err != nil {
		return err
	}
	if err := checkKeyOrg(metering.StoredOrgID, *org); err != nil {
		return err
	}
	tbl, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return err
	}
	records, err := tbl.APIKeys(ctx, metering.OrgID(*org))
	if err != nil {
		return err
	}
	if len(records) == 0 {
		_, err = fmt.Fprintf(p.Stdout, "Organization %s has no keys; `marketmeter key create --org %s` makes one.\n",
			metering.Quote(*org), stack.ShellWord(*org))
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
	flags.Func("keep", "how long the old key stays valid, unless it ends sooner: a `span` like 24h, 7d or 0h (default 24h)", func(text string) (err error) {
		keep, err = cli.ParseSpan(text)
		return err
	})
	lifetime := auth.LikeTheOld
	lifetimeFlag(flags, &lifetime, "90d, or never if the old key never expires")
	org := flags.String("org", "", "the `organization` that the key is of; required")
	ids, err := p.ParseMixed(flags, args)
	if err != nil {
		return err
	}
	ring, hash, err := findKey(ctx, p, *org, ids)
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
	return showKey(p, key, &record, fmt.Sprintf("Made %s.\n%s", record.Describe(), old.DescribeRotation(keep)))
}

func revokeKey(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	org := flags.String("org", "", "the `organization` that the key is of; required with ID")
	audit := flags.String("from-audit", "", "revoke what the audit lines in a `file` revoked, or - for standard input")
	ids, err := p.ParseMixed(flags, args)
	if err != nil {
		return err
	}
	if *audit != "" {
		if len(ids) > 0 {
			return cli.UsageError("it takes --from-audit or an ID, not both")
		}
		return revokeFromAudit(ctx, p, *audit, *org)
	}
	ring, hash, err := findKey(ctx, p, *org, ids)
	if err != nil {
		return err
	}
	record, changed, err := ring.Revoke(ctx, metering.OrgID(*org), hash, time.Now())
	if err != nil {
		return withKeyHint(err, *org)
	}
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	if _, err := fmt.Fprintln(p.Stdout, record.DescribeRevocation(changed)); err != nil {
		return fmt.Errorf("the key %s is revoked, which could not be written to standard output: %w", record.Hash.ID(), err)
	}
	return nil
}

// findKey finds the key of the organization that the single element of ids names. Its error does
// not repeat an invalid one, which may be a secret with a typo.
func findKey(ctx context.Context, p cli.Program, org string, ids []string) (*auth.Keyring, auth.Hash, error) {
	if len(ids) != 1 {
		return nil, auth.Hash{}, cli.UsageError(fmt.Sprintf("it takes one ID of a key; there are %d", len(ids)))
	}
	if !auth.NamesKey(ids[0]) {
		return nil, auth.Hash{}, cli.UsageError(fmt.Sprintf("the ID is invalid: it must be %d to %d digits of 0-9 and a-f, as `marketmeter key list` shows them, "+
			"the %d digits of the whole hash, or the key itself", auth.MinIDDigits, auth.MaxIDDigits, len(auth.Hash{}.String())))
	}
	if err := checkKeyOrg(metering.StoredOrgID, org); err != nil {
		return nil, auth.Hash{}, err
	}
	ring, err := openKeyring(ctx, p)
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
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	_, err := fmt.Fprintf(p.Stdout, "%s\nThis is the only time that the key is shown, and it is stored nowhere. Keep it as you keep a password:\n%s\n", sentences, key)
	if err != nil {
		return fmt.Errorf("the key %s has been made and could not be shown: %w; end it with `marketmeter key revoke --org %s %s`",
			record.Hash.ID(), err, stack.ShellWord(record.Organization), record.Hash.ID())
	}
	return nil
}

// parseFlagsAlone refuses arguments without repeating them: one might be a key.
func parseFlagsAlone(p cli.Program, flags *flag.FlagSet, args []string) error {
	err := p.Parse(flags, args)
	if err == nil && flags.NArg() > 0 {
		err = cli.UsageError("it takes flags alone, as in --org ORG, and no arguments")
	}
	return err
}

func lifetimeFlag(flags *flag.FlagSet, lifetime *time.Duration, otherwise string) {
	flags.Func("expires", "how long the key is valid: a `span` like 90d or 12h, or never (default "+otherwise+")", func(text string) error {
		if text == "never" {
			*lifetime = auth.Forever
			return nil
		}
		span, err := cli.ParseSpan(text)
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
