// Command bench measures the performance goals and prints the table of them with the measured column filled in.
// It owns the measuring: a throwaway Postgres, the built binary as its users run it, the load, the clocks and the
// check that what was measured was also right. Goals that count work rather than time are tests beside the code.
//
// The one idea: a figure is a ratio to a denominator that was taken in the same run on the same machine, the two
// in turns, at least five times; what is printed is the median with the spread. A row that cannot run says why
// instead of printing a number.
//
// Settings are environment variables, as make passes them: ONLY (or -only) picks rows (G4a,G6), REPEATS the turns,
// ROWS the table's size in G4, SHAPES and SECONDS the size and length of G6, SHAPELINE_BIN a binary to take instead of
// building one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
)

// A goal is a row of the table. run fills in the measured column and may add lines for below the table.
type goal struct {
	id, what, peer, gate, stretch string
	run                           func(context.Context, settings) (measured, error)
}

// measured is what a run gives back.
type measured struct {
	figure string
	lines  []string
}

// settings are the sizes of a run.
type settings struct {
	repeats, rows, shapes, seconds int
}

// errCannotRun marks a row that lacks something on this machine.
var errCannotRun = errors.New("cannot run here")

func goals() []goal {
	return []goal{
		{"G4a", "rows into a complete shape log", "COPY t TO STDOUT", "0.50", "0.80", runG4a},
		{"G4b", "same, until the first client holds all; TTFB", "COPY t TO STDOUT", "0.35; +30 ms", "0.55", runG4b},
		{"G6", "commit to client byte, 1,000 tx/s; p50 / p99", "pg_recvlogical",
			"2.5 / 8 ms; 2.0x", "1.2 / 4 ms; 1.5x", runG6},
		{"G7a", "same with MinIO and the feed from ingest to serve", "pg_recvlogical", "5 / 15 ms", "3 / 8 ms", runG7a},
		{"G7b", "same, serve sees only the bucket, 100 tx/s", "pg_recvlogical", "30 / 48 ms", "18 / 35 ms", runG7b},
		{"G15", "bucket requests per 1M changes at 10k/s; at 100/s; idle", "-", "200; 4,000; 0", "120; 1,000; 0", runG15},
		{"G19", "kill -9 of ingest until live again", "-", "3 s at 100,000 shapes", "1 s", runG19},
		{"G10", "match one row at 100, 1k, 10k, 100k shapes", "the 100-shape figure",
			"<= 2.0x, 250 ns", "1.5x, 120 ns", runG10},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the chosen rows and prints the table. A row that fails is printed as failed, and then run fails.
func run(ctx context.Context) error {
	s := settings{
		repeats: envInt("REPEATS", 5), rows: envInt("ROWS", 1_000_000),
		shapes: envInt("SHAPES", 10_000), seconds: envInt("SECONDS", 8),
	}
	only := flag.String("only", os.Getenv("ONLY"), "the rows to measure, by comma; all without it")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected %q; settings are environment variables", flag.Args())
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	var table, notes strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "#\twhat\tmeasured\tgate\tstretch\tdenominator")
	var failed []string
	for _, g := range chosen {
		fmt.Fprintf(os.Stderr, "%s: %s\n", g.id, g.what)
		m, err := g.run(ctx, s)
		switch {
		case errors.Is(err, errCannotRun):
			m.figure = err.Error()
		case err != nil:
			failed = append(failed, g.id)
			m.figure, m.lines = "FAILED", []string{err.Error()}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", g.id, g.what, m.figure, g.gate, g.stretch, g.peer)
		for _, l := range m.lines {
			fmt.Fprintf(&notes, "%s  %s\n", g.id, l)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	fmt.Printf("%s\n%s\n%s, %s/%s, %d CPUs, Postgres with fsync=off, median of %d with [lowest, highest]\n",
		table.String(), notes.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.repeats)
	if failed != nil {
		return fmt.Errorf("rows failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// choose returns the rows that only names, by comma; "" is all of them.
func choose(only string) ([]goal, error) {
	all := goals()
	if only == "" {
		return all, nil
	}
	var chosen []goal
	for _, id := range strings.Split(only, ",") {
		i := slices.IndexFunc(all, func(g goal) bool { return strings.EqualFold(g.id, strings.TrimSpace(id)) })
		if i < 0 {
			return nil, fmt.Errorf("ONLY=%s: no such row; there are G4a, G4b, G6, G7a, G7b, G10, G15 and G19", id)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}
