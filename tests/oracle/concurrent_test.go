package oracle_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

const (
	writersMax     = 4
	writerCommits  = 60 // of each writer, between two quiet points
	openings       = 40 // shapes opened while the writers run
	openingsAtOnce = 3
	pauseMax       = 12 // ms that a transaction is held open at times
)

// write runs writers side by side, each n transactions, and returns when all are done. Transactions are held open
// for random times, so commits come in another order than the transactions' ids.
func (w *world) write(t *testing.T, sessions []*oracle.Session, n int) error {
	var all errgroup.Group
	for lane, s := range sessions {
		r := rand.New(rand.NewPCG(w.seed, 1<<33+uint64(lane)))
		all.Go(func() error {
			for done := 0; done < n; {
				if r.IntN(3) == 0 {
					if err := s.Pause(t.Context(), r.IntN(pauseMax)); err != nil {
						return err
					}
				}
				if _, err := s.Step(t.Context()); err != nil {
					return err
				}
				if s.Idle() {
					done++
				}
			}
			return nil
		})
	}
	return all.Wait()
}

// compare waits until every client holds what Postgres holds now; nobody writes meanwhile.
func (w *world) compare(t *testing.T, shapes []*oracle.Shape, clients []*harness.Client, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
	defer cancel()
	for i, want := range w.states(t, shapes) {
		err := clients[i].AwaitSum(ctx, want.Sum)
		clients[i].View(func(s harness.State) {
			if err != nil {
				t.Errorf("%s client of %s, where %s: %.6000s\n%s", kind, shapes[i].Name, shapes[i].Where,
					err.Error(), oracle.Differences(s.Rows, want.Rows))
			} else if d := oracle.Differences(s.Rows, want.Rows); s.Sum == want.Sum && len(s.Rows) != len(want.Rows) {
				t.Errorf("%s client of %s: equal sums, but %s", kind, shapes[i].Name, d)
			}
			if s.Stats.Refetch > 0 {
				t.Errorf("%s client of %s: %d answers were 409", kind, shapes[i].Name, s.Stats.Refetch)
			}
		})
	}
}

// TestConcurrentWriters compares at quiet points only, but with true concurrency, and with an ingest and a serve
// that share nothing but the bucket.
func TestConcurrentWriters(t *testing.T) {
	w := newWorld(t, true)
	shapes := w.accepted(t, oracle.Shapes())
	var sessions []*oracle.Session
	for lane := range writersMax {
		sessions = append(sessions, w.session(t, lane, writersMax))
	}
	steady, resuming := w.clients(shapes), w.clients(shapes)
	follow(t, steady)
	for round := range scaled(2) {
		if err := w.write(t, sessions, writerCommits); err != nil {
			t.Fatal(err)
		}
		late := w.clients(shapes)
		leave, pause := follow(t, late), follow(t, resuming)
		w.compare(t, shapes, steady, "steady")
		w.compare(t, shapes, late, "late")
		w.compare(t, shapes, resuming, "resuming")
		leave()
		pause()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// clients makes one client of each shape.
func (w *world) clients(shapes []*oracle.Shape) []*harness.Client {
	all := make([]*harness.Client, len(shapes))
	for i, s := range shapes {
		all[i] = harness.NewClient(w.base, s.RequestParams())
		all[i].HTTP = httpClient
	}
	return all
}

// follow runs the clients until stop.
func follow(t *testing.T, clients []*harness.Client) (stop func()) {
	var stops []func()
	for _, c := range clients {
		stops = append(stops, background(t, c.Run))
	}
	return func() {
		for _, s := range stops {
			s()
		}
	}
}

// TestOpenWhileWriting opens shape after shape while transactions begin and commit: snapshot and stream must meet
// without a gap and without an overlap. Each is a definition of its own, so each takes a snapshot of its own.
func TestOpenWhileWriting(t *testing.T) {
	w := newWorld(t, false)
	var sessions []*oracle.Session
	for lane := range writersMax {
		sessions = append(sessions, w.session(t, lane, writersMax))
	}
	var stop atomic.Bool
	writing := make(chan error, 1)
	go func() { // ends with stop, and is waited for
		var err error
		for err == nil && !stop.Load() {
			err = w.write(t, sessions, 5)
		}
		writing <- err
	}()

	shapes := distinctShapes(0, scaled(openings))
	clients := w.clients(shapes)
	var opening errgroup.Group
	opening.SetLimit(openingsAtOnce)
	for i, c := range clients {
		opening.Go(func() error {
			if err := c.Sync(t.Context()); err != nil {
				return fmt.Errorf("%s, where %s: %w", shapes[i].Name, shapes[i].Where, err)
			}
			background(t, c.Run)
			return nil
		})
	}
	err := opening.Wait()
	stop.Store(true)
	if werr := <-writing; werr != nil {
		t.Error(werr)
	}
	if err != nil {
		t.Fatalf("%.6000s", err.Error())
	}
	w.compare(t, shapes, clients, "new")
}

// distinctShapes makes n definitions that have all rows, or nearly all, and differ from those for another first.
func distinctShapes(first, n int) []*oracle.Shape {
	var all []*oracle.Shape
	tables := oracle.Tables()
	for i := first; i < first+n; i++ {
		s := &oracle.Shape{Name: fmt.Sprintf("new-%d", i), Full: i%2 == 0}
		switch i % 4 {
		case 0:
			s.Table, s.Where = tables[0], fmt.Sprintf("id <> %d", i)
		case 1:
			s.Table, s.Where = tables[1], fmt.Sprintf("a <> %d OR note IS NULL", 1000+i)
		case 2:
			s.Table, s.Where = tables[2], fmt.Sprintf("a > %d", i)
		case 3:
			s.Table, s.Where = tables[3], fmt.Sprintf("size IS DISTINCT FROM %d AND name <> '%d'", i%20, i)
		}
		all = append(all, s)
	}
	return all
}
