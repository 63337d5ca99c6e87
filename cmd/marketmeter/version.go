package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/cli"
)

func printVersion(_ context.Context, p cli.Program, args []string) error {
	if err := p.ParseAll(p.Flags(), args); err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "marketmeter %v, %s, %s/%s\n", build.Current(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}
