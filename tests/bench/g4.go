package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"
)

// g4 is the machine and the turns that G4a and G4b have in common.
type g4 struct {
	*machine
	rows int

	ours, ttfb, oursServerCPU, oursPostgresCPU sample // seconds
	copied, copyTTFB, copyPostgresCPU          sample
	copySize                                   int64
}

// runG4a measures until the log is complete. HEAD requests walk along it: they wait for each page as a client does
// and carry no rows.
func runG4a(ctx context.Context, s settings) (measured, error) {
	return runG4(ctx, s, func(ctx context.Context, g *g4) (time.Duration, error) {
		return 0, g.follow(ctx, http.MethodHead, shapeRequest(""), func(*response) error { return nil })
	})
}

// runG4b measures until a client holds all rows, and the time to the first byte of the first answer.
func runG4b(ctx context.Context, s settings) (measured, error) {
	return runG4(ctx, s, func(ctx context.Context, g *g4) (time.Duration, error) {
		var first time.Duration
		err := g.follow(ctx, http.MethodGet, shapeRequest(""), func(r *response) error {
			if first == 0 {
				first = r.firstByte
			}
			return nil
		})
		return first, err
	})
}

// runG4 takes ours and COPY in turns. sync makes the shape and returns its time to the first byte, or zero.
func runG4(ctx context.Context, s settings, sync func(context.Context, *g4) (time.Duration, error)) (measured, error) {
	m, err := newMachine(ctx, referenceTable, fmt.Sprintf(referenceRows, s.rows), "VACUUM (FREEZE, ANALYZE) reference")
	if err != nil {
		return measured{}, err
	}
	defer m.close()
	g := &g4{machine: m, rows: s.rows}
	// One turn of each that does not count: caches fill, and the table gets its replica identity and publication.
	for turn := range s.repeats + 1 {
		if err := g.turn(ctx, turn > 0, sync); err != nil {
			return measured{}, fmt.Errorf("%w\nthe server's log ends: %s", err, m.log)
		}
		fmt.Fprintf(os.Stderr, "  turn %d of %d\n", turn, s.repeats)
	}
	if err := g.check(ctx); err != nil {
		return measured{}, err
	}
	return g.report(), nil
}

func (g *g4) turn(ctx context.Context, counts bool, sync func(context.Context, *g4) (time.Duration, error)) error {
	if err := g.drop(ctx, shapeRequest("")); err != nil {
		return err
	}
	server, postgres := g.cpu()
	start := time.Now()
	first, err := sync(ctx, g)
	if err != nil {
		return err
	}
	ours := time.Since(start)
	serverAfter, postgresAfter := g.cpu()
	copyFirst, copied, size, err := g.copyOut(ctx)
	if err != nil {
		return err
	}
	_, postgresCopy := g.cpu()
	if !counts {
		return nil
	}
	g.ours, g.ttfb = append(g.ours, ours.Seconds()), append(g.ttfb, milliseconds(first))
	g.oursServerCPU = append(g.oursServerCPU, serverAfter-server)
	g.oursPostgresCPU = append(g.oursPostgresCPU, postgresAfter-postgres)
	g.copied, g.copyTTFB = append(g.copied, copied.Seconds()), append(g.copyTTFB, milliseconds(copyFirst))
	g.copyPostgresCPU = append(g.copyPostgresCPU, postgresCopy-postgresAfter)
	g.copySize = size
	return nil
}

// check compares the rows of the last turn's shape with the table's.
func (g *g4) check(ctx context.Context) error {
	var got digest
	err := g.follow(ctx, http.MethodGet, shapeRequest(""), func(r *response) error {
		body, err := plain(r)
		if err != nil {
			return err
		}
		return got.addBody(body)
	})
	if err != nil {
		return err
	}
	want, err := g.tableDigest(ctx, "")
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the client holds %d rows, digest %x, and the table %d, digest %x",
			got.rows, got.sum, want.rows, want.sum)
	}
	return nil
}

func (g *g4) report() measured {
	ratios := make(sample, len(g.ours))
	for i := range ratios {
		ratios[i] = g.copied[i] / g.ours[i] // equal rows: the ratio of the rates
	}
	m := measured{figure: ratios.spread("%.2f"), lines: []string{
		fmt.Sprintf("%d rows, %d bytes of COPY text a row; the client's rows equal the table's",
			g.rows, g.copySize/int64(g.rows)),
		fmt.Sprintf("ours %s s = %.0f rows/s; CPU: server %.2f s, Postgres %.2f s; the server's peak RSS %d MiB",
			g.ours.spread("%.2f"), float64(g.rows)/g.ours.median(),
			g.oursServerCPU.median(), g.oursPostgresCPU.median(), g.peakMiB()),
		fmt.Sprintf("COPY %s s = %.0f rows/s; CPU: Postgres %.2f s",
			g.copied.spread("%.2f"), float64(g.rows)/g.copied.median(), g.copyPostgresCPU.median()),
	}}
	if g.ttfb.median() > 0 {
		m.figure += fmt.Sprintf("; %+.1f ms", g.ttfb.median()-g.copyTTFB.median())
		m.lines = append(m.lines, fmt.Sprintf("time to the first byte: ours %s ms, COPY's %s ms",
			g.ttfb.spread("%.1f"), g.copyTTFB.spread("%.1f")))
	}
	return m
}
