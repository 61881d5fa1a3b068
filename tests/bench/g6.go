package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	g6Rate       = 1000 // transactions a second
	g7bRate      = 100  // the same where serve has only the bucket
	g7bFlush     = "20ms"
	g6Writers    = 4                      // connections that make them
	g6Watched    = 50                     // shapes with a live client; the other shapes have none
	g6Share      = 5                      // every so many transactions go to a watched shape, the rest to any
	g6AtOnce     = 64                     // requests that create shapes at a time
	g6Drain      = 60 * time.Second       // for the last changes to arrive
	g6Reports    = 1000                   // shapes between two lines of progress
	g6DrainPoll  = 20 * time.Millisecond  // between looks at whether they have
	g6MarkDigits = 10                     // of the number in a title: m0000000042
	g6WarmUp     = 500 * time.Millisecond // of load that does not count, at the start of each turn
)

// arrivals holds, for each transaction by its number, when its COMMIT was sent and when its row came first, in
// nanoseconds since base. Zero is "not yet".
type arrivals struct {
	base      time.Time
	sent      []atomic.Int64
	received  []atomic.Int64
	watched   []atomic.Bool
	next      atomic.Int64 // the next transaction's number
	discarded atomic.Int64 // rows that came a second time
}

func newArrivals(n int) *arrivals {
	return &arrivals{
		base: time.Now(), sent: make([]atomic.Int64, n), received: make([]atomic.Int64, n), watched: make([]atomic.Bool, n),
	}
}

func (a *arrivals) now() int64 { return int64(time.Since(a.base)) + 1 }

// arrived notes the marks in b: 'm' and g6MarkDigits digits. It returns the rest of b that may be the beginning of
// one more.
func (a *arrivals) arrived(b []byte) []byte {
	now := a.now()
	for i := 0; i+g6MarkDigits < len(b); i++ {
		if b[i] != 'm' {
			continue
		}
		n, digits := 0, 0
		for ; digits < g6MarkDigits && b[i+1+digits] >= '0' && b[i+1+digits] <= '9'; digits++ {
			n = n*10 + int(b[i+1+digits]-'0')
		}
		if digits == g6MarkDigits && n < len(a.received) && !a.received[n].CompareAndSwap(0, now) {
			a.discarded.Add(1)
		}
	}
	return b[max(0, len(b)-g6MarkDigits):]
}

// latencies returns the milliseconds of the watched transactions from number first up to, but not including, last,
// and how many of them have not arrived.
func (a *arrivals) latencies(first, last int, since int64) (ms sample, missing int) {
	for n := first; n < last; n++ {
		if !a.watched[n].Load() {
			continue
		}
		sent, received := a.sent[n].Load(), a.received[n].Load()
		switch {
		case received == 0:
			missing++
		case sent >= since:
			ms = append(ms, milliseconds(time.Duration(received-sent)))
		}
	}
	return ms, missing
}

// g6 is the state of the row.
type g6 struct {
	*machine
	settings
	*arrivals
	perSecond int // transactions
	conns     []*pgx.Conn

	p50, p99, peerP50, peerP99, rate, serverCPU, postgresCPU, peerCPU sample
	samples, missing                                                  int
}

// runG6 makes the shapes, then takes turns: the server with its live clients, and pg_recvlogical with the server
// stopped (SIGSTOP), under the same load.
func runG6(ctx context.Context, s settings) (measured, error) {
	return runLatency(ctx, s, layout{}, g6Rate)
}

// runG7a is the same with MinIO, and ingest and serve apart.
func runG7a(ctx context.Context, s settings) (measured, error) {
	return runLatency(ctx, s, layout{minio: true, apart: true, feed: true}, g6Rate)
}

// runG7b is the same where serve sees only the bucket. Its requests cost nothing, so that segments may be short.
func runG7b(ctx context.Context, s settings) (measured, error) {
	m, err := runLatency(ctx, s, layout{minio: true, apart: true, flags: []string{"--flush-interval", g7bFlush}}, g7bRate)
	m.figure += " (flush interval " + g7bFlush + ")"
	return m, err
}

func runLatency(ctx context.Context, s settings, l layout, rate int) (measured, error) {
	peer, err := recvlogicalPath()
	if err != nil {
		return measured{}, err
	}
	m, err := newMachineOf(ctx, l, referenceTable)
	if err != nil {
		return measured{}, err
	}
	defer m.close()
	// Twice the load of all turns, and a number for each of the first rows.
	g := &g6{machine: m, settings: s, perSecond: rate, arrivals: newArrivals(4 * s.repeats * (s.seconds + 2) * rate)}
	for range g6Writers {
		conn, err := pgx.Connect(ctx, m.pg.URL())
		if err != nil {
			return measured{}, fmt.Errorf("connect a writer: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		g.conns = append(g.conns, conn)
	}
	creating := time.Now()
	if err := g.createShapes(ctx); err != nil {
		return measured{}, fmt.Errorf("%w\nthe server's log ends: %s", err, m.log)
	}
	created := time.Since(creating)

	// The clients live until all turns are over; their errors end the run.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients, clientsCtx := errgroup.WithContext(ctx)
	for k := range min(g6Watched, s.shapes) {
		clients.Go(func() error { return g.watch(clientsCtx, k) })
	}
	turnsErr := g.turns(clientsCtx, peer)
	cancel()
	if err := errors.Join(clients.Wait(), turnsErr); err != nil && !errors.Is(err, context.Canceled) {
		return measured{}, fmt.Errorf("%w\nthe server's log ends: %s", err, m.log)
	}
	return g.report(created), nil
}

// createShapes requests every shape once.
func (g *g6) createShapes(ctx context.Context) error {
	var all errgroup.Group
	all.SetLimit(g6AtOnce)
	var done atomic.Int64
	for k := range g.shapes {
		all.Go(func() error {
			for {
				r, err := get(ctx, http.MethodGet, g.url+"/v1/shape?"+shapeRequest(tenant(k)).Encode())
				if err != nil {
					return fmt.Errorf("create shape %d: %w", k, err)
				}
				if r.status == http.StatusOK {
					if n := done.Add(1); n%g6Reports == 0 {
						fmt.Fprintf(os.Stderr, "  %d shapes\n", n)
					}
					return nil
				}
				if r.status != http.StatusServiceUnavailable {
					return fmt.Errorf("create shape %d: status %d: %.300s", k, r.status, r.body)
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	return all.Wait()
}

func tenant(k int) string { return fmt.Sprintf("tenant_id = %d", k) }

// turns interleaves the two.
func (g *g6) turns(ctx context.Context, peer string) error {
	for turn := range g.repeats {
		if err := g.ourTurn(ctx); err != nil {
			return fmt.Errorf("turn %d: %w", turn+1, err)
		}
		if err := g.peerTurn(ctx, peer); err != nil {
			return fmt.Errorf("turn %d of pg_recvlogical: %w", turn+1, err)
		}
		fmt.Fprintf(os.Stderr, "  turn %d of %d\n", turn+1, g.repeats)
	}
	return g.check(ctx)
}

func (g *g6) ourTurn(ctx context.Context) error {
	first := int(g.next.Load())
	server, postgres := g.cpu()
	last, since, rate, err := g.load(ctx)
	if err != nil {
		return err
	}
	if err := g.drain(ctx, first, last); err != nil {
		return err
	}
	serverAfter, postgresAfter := g.cpu()
	ms, missing := g.latencies(first, last, since)
	if len(ms) == 0 {
		return fmt.Errorf("none of %d watched changes arrived", missing)
	}
	g.p50, g.p99 = append(g.p50, ms.percentile(50)), append(g.p99, ms.percentile(99))
	g.rate, g.samples, g.missing = append(g.rate, rate), g.samples+len(ms), g.missing+missing
	thousands := float64(last-first) / 1000
	g.serverCPU = append(g.serverCPU, (serverAfter-server)/thousands)
	g.postgresCPU = append(g.postgresCPU, (postgresAfter-postgres)/thousands)
	return nil
}

// drain waits until all watched changes have arrived, or not any more.
func (g *g6) drain(ctx context.Context, first, last int) error {
	deadline := time.Now().Add(g6Drain)
	for {
		if _, missing := g.latencies(first, last, 0); missing == 0 || time.Now().After(deadline) {
			return ctx.Err()
		}
		select {
		case <-time.After(g6DrainPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// load makes transactions at the rate for the time of a turn. It returns the number behind the last one, the moment
// from which they count, and the rate that was reached.
func (g *g6) load(ctx context.Context) (last int, since int64, rate float64, err error) {
	start := time.Now()
	end := start.Add(g6WarmUp + time.Duration(g.seconds)*time.Second)
	since = g.now() + int64(g6WarmUp)
	first := g.next.Load()
	var all errgroup.Group
	for w, conn := range g.conns {
		all.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(first), uint64(w)))
			for i := 0; ; i++ {
				due := start.Add(time.Duration(i*g6Writers+w) * time.Second / time.Duration(g.perSecond))
				if due.After(end) {
					return nil
				}
				time.Sleep(time.Until(due))
				if err := g.transaction(ctx, conn, r); err != nil {
					return err
				}
			}
		})
	}
	err = all.Wait()
	n := g.next.Load()
	return int(n), since, float64(n-first) / time.Since(start).Seconds(), err
}

// transaction inserts one row. The clock starts as COMMIT is sent.
func (g *g6) transaction(ctx context.Context, conn *pgx.Conn, r *rand.Rand) error {
	n := g.next.Add(1) - 1
	if int(n) >= len(g.sent) {
		return fmt.Errorf("more than %d transactions", len(g.sent))
	}
	k, watched := r.IntN(g.shapes), min(g6Watched, g.shapes)
	if n%g6Share == 0 {
		k = r.IntN(watched)
	}
	g.watched[n].Store(k < watched)
	sql := fmt.Sprintf("BEGIN; INSERT INTO reference VALUES "+
		"(%d, %d, 'open', 'm%0*d, a title of the usual length for a row', 12.50, '{tag,label}', '2024-01-01Z')",
		n, k, g6MarkDigits, n)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	g.sent[n].Store(g.now())
	if _, err := conn.PgConn().Exec(ctx, "COMMIT").ReadAll(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// check compares the rows of the watched shapes, asked for anew, with the table's.
func (g *g6) check(ctx context.Context) error {
	for k := range min(g6Watched, g.shapes) {
		want, err := g.tableDigest(ctx, tenant(k))
		if err != nil {
			return err
		}
		var got digest
		err = g.follow(ctx, http.MethodGet, shapeRequest(tenant(k)), func(r *response) error {
			body, err := plain(r)
			if err != nil {
				return err
			}
			return got.addBody(body)
		})
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("shape %d has %d rows, digest %x; the table %d, digest %x",
				k, got.rows, got.sum, want.rows, want.sum)
		}
	}
	return nil
}

func (g *g6) report(created time.Duration) measured {
	ratios := make(sample, len(g.p50))
	for i := range ratios {
		ratios[i] = g.p50[i] / g.peerP50[i]
	}
	m := measured{figure: fmt.Sprintf("%.2f / %.2f ms; %.2fx", g.p50.median(), g.p99.median(), ratios.median())}
	if g.shapes != 10_000 {
		m.figure += fmt.Sprintf(" (%d shapes only)", g.shapes)
	}
	m.lines = []string{
		fmt.Sprintf("%d shapes tenant_id = k, created in %.1f s, %d of them with a live client (events); one-row inserts "+
			"of the reference row, %.0f/s reached; %d changes timed, %d never came; "+
			"the rows of the watched shapes equal the table's",
			g.shapes, created.Seconds(), min(g6Watched, g.shapes), g.rate.median(), g.samples, g.missing),
		fmt.Sprintf("ours p50 %s, p99 %s ms; CPU seconds per 1,000 transactions: server %.3f, Postgres with the load %.3f",
			g.p50.spread("%.2f"), g.p99.spread("%.2f"), g.serverCPU.median(), g.postgresCPU.median()),
		fmt.Sprintf("pg_recvlogical p50 %s, p99 %s ms; CPU seconds per 1,000 transactions: Postgres with the load %.3f",
			g.peerP50.spread("%.2f"), g.peerP99.spread("%.2f"), g.peerCPU.median()),
		fmt.Sprintf("the ratio of the p50s %s; the server's peak RSS %d MiB", ratios.spread("%.2f"), g.peakMiB()),
	}
	return m
}

// watchRequest is the query of a live stream of shape k.
func watchRequest(k int, handle, offset, cursor string) url.Values {
	q := shapeRequest(tenant(k))
	for name, v := range map[string]string{
		"handle": handle, "offset": offset, "cursor": cursor, "live": "true", "live_sse": "true",
	} {
		q.Set(name, v)
	}
	return q
}
