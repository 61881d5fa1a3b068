package oracle_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

const (
	sessionsMax = 4  // writers with open transactions at a time
	roundsMin   = 3  // ended by a quiet point each
	roundLength = 30 // commits
	freshShapes = 4  // opened in each round
)

// httpClient keeps as many connections as there are clients.
var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}}

// player is one client of one shape that a goroutine runs.
type player struct {
	kind   string
	shape  int
	client *harness.Client // nil for a stream
	stream *stream
	rec    *recorder
	stop   func()
}

// game is the state of TestEveryCommit.
type game struct {
	*world
	shapes   []*oracle.Shape
	sessions []*oracle.Session
	records  []record
	marks    *harness.Client
	marked   int
}

// TestEveryCommit drives several sessions in one goroutine, a statement here, a statement there, so that
// transactions overlap and commit in another order than they began, and yet one knows the order. Every client,
// whenever it came, must have held what Postgres held at each commit from its snapshot on.
func TestEveryCommit(t *testing.T) {
	g := newGame(t)
	var steady, resuming []*player
	for i := range g.shapes {
		steady = append(steady, g.play(t, "steady", i), g.playStream(t, i))
		resuming = append(resuming, g.play(t, "resuming", i))
	}
	if t.Failed() {
		return
	}
	standing := len(g.shapes)
	for round := range scaled(roundsMin) {
		var late []*player
		joinAt, leaveAt, returnAt := g.rand.IntN(roundLength), g.rand.IntN(roundLength), g.rand.IntN(roundLength)
		for n := range roundLength {
			if n == joinAt {
				for i := range g.shapes {
					late = append(late, g.play(t, "late", i))
				}
				late = append(late, g.fresh(t, round)...)
			}
			if n == leaveAt {
				for _, p := range resuming {
					p.stop()
				}
			}
			if n == returnAt && returnAt > leaveAt || n == roundLength-1 {
				for _, p := range resuming {
					p.run(t)
				}
			}
			g.commit(t)
		}
		g.quiet(t, slices.Concat(steady, resuming, late))
		for _, p := range late {
			p.stop()
		}
		g.shapes = g.shapes[:standing]
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		forget(g.records)
	}
	t.Logf("%d commits, %d shapes, %d clients in the last round", len(g.records)-1, len(g.shapes), 4*len(g.shapes))
}

func newGame(t *testing.T) *game {
	g := &game{world: newWorld(t, false), shapes: oracle.Shapes()}
	g.db.Exec(t, "CREATE TABLE marks (n int PRIMARY KEY)")
	g.shapes = g.accepted(t, g.shapes)
	for i := range sessionsMax {
		g.sessions = append(g.sessions, g.session(t, i, sessionsMax))
	}
	end, err := g.insertLSN(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.records = []record{{end: end, states: g.states(t, g.shapes)}}
	g.marks = harness.NewClient(g.base, harness.Params("table", "marks"))
	if err := g.marks.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	background(t, g.marks.Run)
	return g
}

// accepted returns those of shapes that the server opens; each of the others is a failure of its own.
func (w *world) accepted(t *testing.T, shapes []*oracle.Shape) []*oracle.Shape {
	t.Helper()
	ok := make([]bool, len(shapes))
	var all errgroup.Group
	for i, s := range shapes {
		all.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
			defer cancel()
			err := harness.NewClient(w.base, s.RequestParams()).Sync(ctx)
			if ok[i] = err == nil; !ok[i] {
				t.Errorf("open the shape %s, where %s: %v", s.Name, s.Where, err)
			}
			return nil
		})
	}
	_ = all.Wait() // the functions report for themselves
	var open []*oracle.Shape
	for i, s := range shapes {
		if ok[i] {
			open = append(open, s)
		}
	}
	return open
}

// background runs f until stop, or the end of the test; then f must return. Its error fails the test.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // waited for by stop, which the clean-up calls at the latest
		defer close(ended)
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%.6000s", err.Error())
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// play starts a client of a shape without waiting for it.
func (g *game) play(t *testing.T, kind string, shape int) *player {
	c := harness.NewClient(g.base, g.shapes[shape].RequestParams())
	c.HTTP = httpClient
	p := &player{kind: kind, shape: shape, client: c, rec: newRecorder(c)}
	p.run(t)
	return p
}

// run lets a player that has stopped, or not yet begun, go on.
func (p *player) run(t *testing.T) {
	if p.stop != nil {
		p.stop()
	}
	p.stop = background(t, p.client.Run)
}

// fresh opens shapes that nobody has asked for, so that snapshots are taken in the midst of open transactions. What
// they hold at the newest commit is asked for now: no snapshot of theirs can be older.
func (g *game) fresh(t *testing.T, round int) []*player {
	var players []*player
	added := distinctShapes(round*freshShapes, freshShapes)
	newest := &g.records[len(g.records)-1]
	// The last commit of a round knows the shapes that were opened in it, and have left the game since.
	newest.states = append(newest.states[:len(g.shapes)], g.states(t, added)...)
	for _, s := range added {
		g.shapes = append(g.shapes, s)
		players = append(players, g.play(t, "fresh", len(g.shapes)-1))
	}
	return players
}

// playStream opens a stream of a shape.
func (g *game) playStream(t *testing.T, shape int) *player {
	s := newStream(g.base, g.shapes[shape].RequestParams())
	if err := s.open(t.Context()); err != nil {
		t.Fatalf("stream of %s: %v", g.shapes[shape].Name, err)
	}
	return &player{kind: "stream", shape: shape, stream: s, rec: s.rec, stop: background(t, s.run)}
}

// commit steps through the sessions until one has committed, and records what must hold from then on.
func (g *game) commit(t *testing.T) {
	for {
		done, err := g.sessions[g.rand.IntN(len(g.sessions))].Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done == nil {
			continue
		}
		end, err := g.insertLSN(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g.records = append(g.records, record{Commit: *done, end: end, states: g.states(t, g.shapes)})
		return
	}
}

// quiet waits until every player has everything, and checks them. What "everything" is comes from a transaction
// made last: whoever is told of its LSN, or of a later one, has all before it.
func (g *game) quiet(t *testing.T, players []*player) {
	ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
	defer cancel()
	g.marked++
	if _, err := g.reader.Exec(ctx, "INSERT INTO marks VALUES ($1)", g.marked); err != nil {
		t.Fatal(err)
	}
	var mark uint64
	err := g.marks.Await(ctx, func(s harness.State) bool {
		mark = s.LSN
		return len(s.Rows) == g.marked
	})
	if err != nil {
		t.Fatalf("the closing transaction does not arrive: %v", err)
	}
	newest := make([]uint64, len(g.shapes)) // of each shape's transactions
	for _, p := range players {
		if p.client == nil {
			continue
		}
		if err := p.client.AwaitLSN(ctx, mark); err != nil {
			t.Errorf("%s client of %s: %.6000v", p.kind, g.shapes[p.shape].Name, err)
			continue
		}
		newest[p.shape] = max(newest[p.shape], p.rec.newestLSN())
	}
	for _, p := range players {
		if p.stream != nil {
			if err := p.stream.await(ctx, newest[p.shape]); err != nil {
				t.Errorf("%s client of %s: %v", p.kind, g.shapes[p.shape].Name, err)
			}
		}
		if err := p.rec.check(p.shape, g.records); err != nil {
			t.Errorf("%s client of %s: %v", p.kind, g.shapes[p.shape].Name, err)
		}
	}
}
