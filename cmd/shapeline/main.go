// Command shapeline is the whole of Shapeline in one binary: `shapeline dev` runs every plane in one process,
// `shapeline ingest` and `shapeline serve` run one each. This is the only place that imports every plane; it reads
// settings, wires the planes together, and starts and ends them in order.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

type cli struct {
	Dev     devCmd     `cmd:"" help:"Run everything in one process, for development: open, and on loopback only."`
	Ingest  ingestCmd  `cmd:"" help:"Follow a Postgres database and write its shapes to the bucket."`
	Serve   serveCmd   `cmd:"" help:"Answer clients from the bucket."`
	Bucket  bucketCmd  `cmd:"" help:"Look into a bucket: list, inspect, check; delete garbage."`
	Version versionCmd `cmd:"" help:"Print the version."`

	LogLevel slog.Level `help:"debug, info, warn or error." default:"info" env:"SHAPELINE_LOG_LEVEL,ELECTRIC_LOG_LEVEL"`
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("shapeline"), kong.ShortUsageOnError(), kong.Description(
		"Live subsets of a Postgres database, over plain HTTP, from a bucket. Each setting is a flag or an environment variable."))
	log := newLogger(c.LogLevel)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(log); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "shapeline:", err)
		os.Exit(1)
	}
}

// newLogger logs text to a terminal and JSON to everything else.
func newLogger(level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts))
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println(version())
	return nil
}

// version is the module's, from the build information.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
