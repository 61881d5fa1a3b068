package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	g15Fast    = 10_000 // changes a second, in transactions of a hundred
	g15Slow    = 100    // changes a second, in transactions of one
	g15Seconds = 30     // of each load
	g15Flush   = "3s"
	g15Idle    = 20 * time.Second
	g15Settle  = 30 * time.Second // at most, for what the shapes' making left to do
)

// runG15 counts what ingest and serve ask of the bucket, by their own counters, with the feed between them. With it the
// flush interval says only what is paid.
func runG15(ctx context.Context, s settings) (measured, error) {
	var m measured
	var figures []string
	for _, shapes := range []int{10, 1000} {
		fast, slow, idle, lines, err := g15(ctx, shapes)
		if err != nil {
			return m, err
		}
		figures = append(figures, fmt.Sprintf("%.0f; %.0f; %.0f at %d shapes", fast, slow, idle, shapes))
		m.lines = append(m.lines, lines...)
	}
	m.figure = strings.Join(figures, ", ") + " (flush interval " + g15Flush + ")"
	return m, nil
}

func g15(ctx context.Context, shapes int) (fast, slow, idle float64, lines []string, err error) {
	m, err := newMachineOf(ctx, layout{minio: true, apart: true, feed: true, flags: []string{"--flush-interval", g15Flush}}, referenceTable)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	defer m.close()
	g := &g6{machine: m, settings: settings{shapes: shapes}}
	if err := g.createShapes(ctx); err != nil {
		return 0, 0, 0, nil, err
	}
	conn, err := pgx.Connect(ctx, m.pg.URL())
	if err != nil {
		return 0, 0, 0, nil, fmt.Errorf("connect a writer: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	next := 0
	load := func(perSecond, size int) (float64, error) {
		before, err := m.requests(ctx)
		if err != nil {
			return 0, err
		}
		start, first := time.Now(), next
		for i := 0; time.Since(start) < g15Seconds*time.Second; i++ {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second * time.Duration(size) / time.Duration(perSecond))))
			_, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO reference SELECT i, i %% %d, 'open', 'a title of the usual length for a row', 12.50, "+
				"'{tag,label}', '2024-01-01Z' FROM generate_series(%d, %d) i", shapes, next+1, next+size))
			if err != nil {
				return 0, fmt.Errorf("insert: %w", err)
			}
			next += size
		}
		after, err := m.requests(ctx)
		if err != nil {
			return 0, err
		}
		changes, asked := next-first, total(after)-total(before)
		kinds := make(map[string]float64)
		for k, n := range after {
			if d := n - before[k]; d > 0 {
				kinds[k] = d
			}
		}
		lines = append(lines, fmt.Sprintf("%d shapes, %d changes in %.0f s: %.0f requests, %v", shapes, changes, time.Since(start).Seconds(), asked, kinds))
		return asked / float64(changes) * 1e6, nil
	}
	if fast, err = load(g15Fast, 100); err != nil {
		return 0, 0, 0, nil, err
	}
	if slow, err = load(g15Slow, 1); err != nil {
		return 0, 0, 0, nil, err
	}
	for end := time.Now().Add(g15Settle); ; {
		before, err := m.requests(ctx)
		if err != nil {
			return 0, 0, 0, nil, err
		}
		time.Sleep(g15Idle)
		after, err := m.requests(ctx)
		if err != nil {
			return 0, 0, 0, nil, err
		}
		if idle = total(after) - total(before); idle == 0 || time.Now().After(end) {
			return fast, slow, idle, lines, nil
		}
	}
}

func total(counts map[string]float64) (n float64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// requests is what the machine's processes have asked of the bucket so far, by operation and kind of object.
func (m *machine) requests(ctx context.Context) (map[string]float64, error) {
	counts := make(map[string]float64)
	for _, addr := range m.metrics {
		r, err := get(ctx, http.MethodGet, "http://"+addr+"/metrics")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(r.body)) {
			labels, ok := strings.CutPrefix(line, "shapeline_store_requests_total{")
			if !ok {
				continue
			}
			name, value, _ := strings.Cut(labels, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return nil, fmt.Errorf("read the metrics: %w", err)
			}
			counts[strings.NewReplacer(`kind="`, "", `",op="`, " ", `"`, "").Replace(name)] += n
		}
	}
	return counts, nil
}
