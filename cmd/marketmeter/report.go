package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	"github.com/marketmeter/marketmeter/internal/stack"
)

var reportCommands = []cli.Command{
	{Name: "status", Does: "show what waits to be reported, and what needs a person", Run: reportCommand(operate.ReadStatus, reads, "", "[org]")},
	{Name: "run", Does: "do now what the schedule does", Run: reportCommand(operate.Run, changes, "")},
	{Name: "resolve", Does: "say of a dimension that is CONFLICT or UNKNOWN whether it was billed", Run: reportCommand(operate.Resolve, changes, "REPORT DIMENSION billed|not-billed", "org", "by")},
	{Name: "enqueue", Does: "have usage reported that was imported", Run: reportCommand(operate.Enqueue, changes, "", "org", "entitlement", "not-billed")},
	{Name: "pause", Does: "send nothing, until it is resumed", Run: reportCommand(operate.Pause, changes, "", "by")},
	{Name: "resume", Does: "send again, after a pause or a restore", Run: reportCommand(operate.Resume, changes, "", "by", "since")},
}

// Whether a command reads alone, or changes something.
const (
	reads   = false
	changes = true
)

// reportRun does what the operator asks.
type reportRun = func(context.Context, *operate.Request) (operate.Result, error)

func report(ctx context.Context, p cli.Program, args []string) error {
	if status := p.Dispatch(ctx, reportCommands, args); status != 0 {
		return cli.ExitStatus(status)
	}
	return nil
}

// parseSince reads --since.
func parseSince(text string) (time.Time, error) {
	since, err := metering.ParseTime(text)
	if err == nil && since.IsZero() { // which is a Request without it
		err = fmt.Errorf("%s is before there were tables", text)
	}
	return since, err
}

// reportCommand is the command that takes those arguments and flags. It prints the result, as JSON
// with --json, and exits with 1 if that is not all that was to be done. One that changes something
// reports it, also if the reader of its output has gone.
func reportCommand(run reportRun, changes bool, arguments string, names ...string) func(context.Context, cli.Program, []string) error {
	return func(ctx context.Context, p cli.Program, args []string) error {
		r := operate.Request{Getenv: p.Getenv, Now: time.Now, Log: logger(p)}
		var org, entitlement string
		flags := p.Flags()
		asJSON := flags.Bool("json", false, "print JSON")
		for _, name := range names {
			switch name {
			case "org":
				flags.StringVar(&org, name, "", "the `organization`; required")
			case "[org]":
				flags.StringVar(&org, "org", "", "only this `organization`")
			case "entitlement":
				flags.StringVar(&entitlement, name, "", "only the usage of this `entitlement`")
			case "not-billed":
				flags.BoolVar(&r.NotBilled, name, false, "after a restore: the marketplace has billed none of the usage")
			case "by":
				flags.StringVar(&r.By, name, "", "the `name` to store of who says so (default: the user of this machine)")
			case "since":
				cli.Var(flags, &r.Since, name, "the `time` that the table was restored to, as in 2026-11-18T12:30:00Z", parseSince)
			}
		}
		var err error
		if r.Arguments, err = p.ParseMixed(flags, args); err != nil {
			return err
		}
		if err := cli.CheckArguments(r.Arguments, arguments); err != nil {
			return err
		}
		if org != "" || slices.Contains(names, "org") {
			if r.Organization, err = parseOrg(metering.StoredOrgID, org); err != nil {
				return err
			}
		}
		if holdsKey(r.By) {
			return cli.UsageError("--by holds a key: it must be a name")
		}
		if err := auth.CheckLabel(r.By); err != nil {
			return cli.UsageError(fmt.Sprintf("--by is %s: %v", metering.Quote(r.By), err))
		}
		if entitlement != "" {
			if r.Entitlement, err = metering.StoredEntitlementID(entitlement); err != nil {
				return cli.UsageError("--entitlement is invalid: " + err.Error())
			}
		}
		if r.Target, err = stack.Open(ctx, p.Getenv, p.Stderr); err != nil {
			return err
		}
		if r.By == "" && slices.Contains(names, "by") {
			if r.By, err = r.Target.Operator(ctx); err != nil {
				return err
			}
		}
		result, err := run(ctx, &r)
		if err != nil {
			return err
		}
		out, what := p.Stdout, "the status could not be written whole"
		if changes {
			out, what = p.Results(), "what was done could not be written to standard output"
		}
		if *asJSON {
			e := json.NewEncoder(out)
			e.SetEscapeHTML(false)
			err = e.Encode(result)
		} else {
			err = result.WriteText(out)
		}
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case result.Incomplete():
			return cli.ExitStatus(1)
		}
		return nil
	}
}
