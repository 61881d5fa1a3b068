package shapelog

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
)

// The simulation runs the real Writer and Follower of several processes over one store in virtual time. Processes
// pause, crash and replace each other, requests and replies are lost or come hours late, the floor rises and what is
// below it is deleted. The transactions are 1, 2, 3, ...; each has one to three parts, which may lie in several
// segments. What must hold: every reader sees 1, 2, 3, ... whole, and everything acknowledged is in the log.

const (
	simWriters = 3
	simReaders = 3
)

type world struct {
	seed     uint64
	rules    rules
	store    *object.Memory
	weather  weather
	storm    time.Duration // how long it lasts
	rest     time.Duration // how long a writer that ended stays away, at most
	txns     int
	leisure  float64         // how often a writer pauses between two segments
	nap      time.Duration   // how long then, at most
	tidy     float64         // how often it makes a checkpoint after one
	thorough bool            // raises the floor each time, and up to the checkpoint
	ctx      context.Context // of all processes
	effects  sync.WaitGroup  // of requests

	mu        sync.Mutex
	began     time.Time
	commits   []time.Time // of transaction i+1
	acked     int         // the last transaction acknowledged to Postgres
	catalogs  map[uint64]simState
	history   []segment.Meta // what was first in each slot: history[0] is slot 1; with a zero Seq for none yet
	again     int            // slots that were filled again after they were deleted
	violation error          // the first
}

// created notes what was put into a slot, by the all-seeing eye.
func (w *world) created(key string, body []byte) {
	if _, err := ParseSegmentKey(key); err != nil {
		return
	}
	s, err := segment.Decode(body)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for uint64(len(w.history)) < s.Seq {
		w.history = append(w.history, segment.Meta{})
	}
	if h := &w.history[s.Seq-1]; h.Seq == 0 {
		*h = s.Meta
	} else {
		w.again++
	}
}

// counts reports whether the segment is the one that counts in its slot: it came first, no slot before it is empty,
// and none has a higher epoch.
func (w *world) counts(m segment.Meta) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.Seq > uint64(len(w.history)) || w.history[m.Seq-1] != m {
		return false
	}
	for _, h := range w.history[:m.Seq] {
		if h.Seq == 0 || h.Epoch > m.Epoch {
			return false
		}
	}
	return true
}

func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.violation == nil {
		w.violation = fmt.Errorf("after %v: %w", time.Since(w.began), fmt.Errorf(format, args...))
	}
}

func (w *world) violated() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violation
}

// parts is how many parts a transaction has.
func (w *world) parts(txn int) int {
	h := fnv.New32a()
	fmt.Fprint(h, w.seed, txn)
	return 1 + int(h.Sum32()%5)
}

func lsn(txn int) pg.LSN { return pg.LSN(txn * 16) }

// simState is what the log adds up to: how many transactions, and how many parts of the next.
type simState struct {
	Seq, Epoch uint64
	Txn, Part  int
}

// take adds one part and reports whether it was the one to come.
func (s *simState) take(w *world, txn, part int) bool {
	if txn != s.Txn+1 || part != s.Part+1 {
		return false
	}
	s.Part = part
	if part == w.parts(txn) {
		s.Txn, s.Part = txn, 0
	}
	return true
}

// ledger is a Recovery that checks what it is fed.
type ledger struct {
	p      *proc
	strict bool // for a reader, whose state is seen at once; a writer's counts only when it has opened the log
	state  simState
	wrong  error
}

func (l *ledger) Load(_ context.Context, c Checkpoint) error {
	l.wrong = nil
	if c == (Checkpoint{}) {
		l.state = simState{}
		return nil
	}
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	state, ok := l.p.w.catalogs[c.Generation]
	if !ok || state.Seq != c.Seq {
		return fmt.Errorf("no catalog %+v", c)
	}
	l.state = state
	return nil
}

func (l *ledger) Apply(s *segment.Segment) error {
	if s.Seq <= l.state.Seq || s.Epoch < l.state.Epoch || !l.p.w.counts(s.Meta) {
		l.blame("%s was fed %+v at %+v", l.p.name, s.Meta, l.state)
	}
	if s.Epoch > l.state.Epoch {
		l.state.Epoch, l.state.Part = s.Epoch, 0 // a transaction that was cut comes again whole
	}
	l.state.Seq = s.Seq
	for i := range s.Frames {
		for _, m := range s.Frames[i].Messages {
			before := l.state
			if !l.state.take(l.p.w, int(m.Offset.Tx/16), int(m.Offset.Op)) {
				l.blame("%s reads part %s in %+v, at %+v", l.p.name, m.Offset, s.Meta, before)
			}
		}
		if s.Frames[i].Visible != lsn(l.state.Txn) {
			l.blame("%s reads that all up to %s is complete, at %+v", l.p.name, s.Frames[i].Visible, l.state)
		}
	}
	return nil
}

func (l *ledger) blame(format string, args ...any) {
	if l.wrong == nil {
		l.wrong = fmt.Errorf(format, args...)
		if l.strict && l.p.alive() {
			l.p.w.violate("%w", l.wrong)
		}
	}
}

// A climate sets up a world before its run.
type climate func(w *world, r *rand.Rand)

// mixed is a bit of everything: a run may be quiet or wild, busy or slow, tidy or not.
func mixed(w *world, r *rand.Rand) {
	w.weather = weather{
		lostRequest: r.Float64() * 0.1, lostReply: r.Float64() * 0.1, late: r.Float64() * 0.2,
		pause: r.Float64() * 0.1, pauseMax: 10*time.Minute + time.Duration(r.Int64N(int64(4*time.Hour))),
		latency: 10 * time.Millisecond << r.IntN(8),
	}
	w.leisure, w.tidy = math.Pow(r.Float64(), 3), math.Pow(r.Float64(), 3)
	w.storm, w.rest, w.nap, w.txns = 16*time.Hour, 4*time.Hour, w.weather.pauseMax, 60
	at := w.began
	for range w.txns {
		if r.IntN(3) > 0 { // else together with the one before
			at = at.Add(span(r, time.Hour))
		}
		w.commits = append(w.commits, at)
	}
}

// sleepy has much to write, and processes that often stand still for about as long as segments are kept, while the
// floor rises seldom but far.
func sleepy(w *world, r *rand.Rand) {
	w.weather = weather{pause: 0.005, even: true, pauseMax: 3 * time.Hour, latency: 100 * time.Millisecond}
	w.leisure, w.nap, w.tidy, w.thorough = 0.5, lateAfter, 0.2, true
	w.storm, w.rest, w.txns = 16*time.Hour, 4*time.Hour, 200
	for range w.txns {
		w.commits = append(w.commits, w.began)
	}
}

// busy has writers that fill their windows and take over from each other every few seconds.
func busy(w *world, r *rand.Rand) {
	w.weather = weather{late: 0.15, lostReply: 0.02, pauseMax: 8 * time.Second, latency: time.Second / 2}
	w.storm, w.rest, w.txns = 6*time.Minute, 2*time.Minute, 150
	for range w.txns {
		w.commits = append(w.commits, w.began)
	}
}

// simulate returns the first violation of a run.
func simulate(t *testing.T, c climate, seed uint64, off rules) (violation error) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{seed: seed, rules: off, store: object.NewMemory(), began: time.Now(),
			catalogs: make(map[uint64]simState)}
		c(w, rand.New(rand.NewPCG(seed, 1)))
		w.run(t)
		violation = w.violation
	})
	return violation
}

func (w *world) run(t *testing.T) {
	defer w.effects.Wait()
	ctx, stop := context.WithTimeout(t.Context(), w.storm)
	defer stop()
	w.ctx = ctx
	var actors sync.WaitGroup
	for i := range simWriters {
		actors.Go(func() { w.writer(i) })
	}
	var readers [simReaders]struct {
		p *proc
		l *ledger
		f *Follower
	}
	for i := range readers {
		actors.Go(func() { readers[i].p, readers[i].l, readers[i].f = w.reader(i) })
	}
	actors.Wait()
	w.effects.Wait()
	if w.violated() != nil {
		return
	}

	// Now the store is calm, and everybody must come to the same end.
	w.ctx = t.Context()
	last := w.start("last writer")
	last.calm = true
	s := &session{p: last, r: last.rng("session")}
	for i := range w.commits {
		w.commits[i] = time.Now()
	}
	if err := s.write(w.txns); err != nil {
		w.violate("the last writer: %w", err)
		return
	}
	if s.last.Txn != w.txns {
		w.violate("the last writer ends at %+v", s.last)
	}
	for _, r := range readers {
		if r.f != nil {
			w.catchUp(t, r.p, r.l, r.f)
		}
	}
	fresh := w.start("fresh reader")
	fresh.calm = true
	l := &ledger{p: fresh, strict: true}
	f, err := OpenFollower(fresh.ctx, fresh, l, FollowerOptions{rules: w.rules})
	if err != nil {
		w.violate("the fresh reader: %w", err)
		return
	}
	w.catchUp(t, fresh, l, f)
}

// catchUp lets a reader read to the end, and checks that it gets there.
func (w *world) catchUp(t *testing.T, p *proc, l *ledger, f *Follower) {
	p.ctx, p.calm, p.paused = t.Context(), true, time.Time{}
	for range 3 { // it may come back to slots that were deleted, and start over
		if err := f.Sync(t.Context()); err != nil {
			w.violate("%s: %w", p.name, err)
			return
		}
	}
	if l.state.Txn != w.txns {
		w.violate("%s ends at %+v", p.name, l.state)
	}
}

// simSeeds returns the seeds to run: the one of SHAPELINE_SIM_SEED, or SHAPELINE_SIM_SEEDS many, or normally.
func simSeeds(t *testing.T, normally uint64) (first, n uint64) {
	t.Helper()
	number := func(name string) (uint64, bool) {
		s := os.Getenv(name)
		if s == "" {
			return 0, false
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v, true
	}
	if seed, ok := number("SHAPELINE_SIM_SEED"); ok {
		return seed, 1
	}
	if n, ok := number("SHAPELINE_SIM_SEEDS"); ok {
		return 0, n
	}
	return 0, normally
}

func TestSimulation(t *testing.T) {
	for _, c := range []struct {
		name     string
		climate  climate
		normally uint64
	}{{"mixed", mixed, 100}, {"sleepy", sleepy, 20}, {"busy", busy, 50}} {
		t.Run(c.name, func(t *testing.T) {
			first, n := simSeeds(t, c.normally/simShare)
			for seed := first; seed < first+n; seed++ {
				if err := simulate(t, c.climate, seed, rules{}); err != nil {
					t.Fatalf("replay with SHAPELINE_SIM_SEED=%d: %v", seed, err)
				}
			}
		})
	}
}
