package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shapeline/shapeline/internal/audit"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/dir"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/object/minio"
	"github.com/shapeline/shapeline/internal/object/objecttest"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/tests/harness"
)

const (
	writers    = 12
	shapes     = 4
	txsPerTerm = 40 // on average, before the next writer comes
	runMax     = 2 * time.Minute

	seedsEnv     = "SHAPELINE_CHAOS_SEEDS"
	seedsDefault = 4
)

func TestMain(m *testing.M) { harness.Main(m) }

// weather is what may go wrong with every single request.
var weather = objecttest.Faults{
	LostRequest: 0.01, Refused: 0.01, Told: 0.02, LostReply: 0.01, Ghost: 0.02, BrokenRead: 0.01, ShortRead: 0.01, Slow: 0.05,
	GhostDelay: 300 * time.Millisecond, SlowDelay: 20 * time.Millisecond,
}

func seeds(t *testing.T) uint64 {
	n, err := strconv.ParseUint(os.Getenv(seedsEnv), 10, 32)
	if err != nil {
		return seedsDefault
	}
	return n
}

func TestDirectory(t *testing.T) {
	for seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			store, err := dir.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			run(t, store, seed)
		})
	}
}

func TestMinIO(t *testing.T) {
	harness.Require(t)
	server := harness.Store(t, "minio")
	for _, pair := range server.Env() {
		key, value, _ := strings.Cut(pair, "=")
		t.Setenv(key, value)
	}
	for seed := range (seeds(t) + 9) / 10 {
		l, err := location.Parse(server.URL(server.NewBucket(t)))
		if err != nil {
			t.Fatal(err)
		}
		store, err := minio.Open(l)
		if err != nil {
			t.Fatal(err)
		}
		run(t, store, 1000+seed)
	}
}

// world is one run.
type world struct {
	t     *testing.T
	seed  uint64
	calm  object.Store // without faults
	store *objecttest.Faulty

	confirmed atomic.Uint64 // the highest LSN that Postgres has been told to forget
	stop      chan struct{} // closed when there have been enough transactions
	newest    atomic.Int64  // number of the writer that came last
	looks     atomic.Int64  // of readers at shapes
	terms     atomic.Int64
	packs     atomic.Int64
}

func run(t *testing.T, calm object.Store, seed uint64) {
	t.Helper()
	w := &world{t: t, seed: seed, calm: calm, store: objecttest.NewSeededFaulty(calm, seed), stop: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	w.store.Set(weather)
	for id := range shapes {
		page := segment.AppendPage(nil, segment.Page{Last: true, Body: []byte("[]")})
		if _, err := calm.Put(ctx, shape.Handle{Shape: shape.ID(id + 1)}.PageKey(0), page, object.Always()); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	rnd := rand.New(rand.NewPCG(seed, 3))
	goals := make([]uint64, writers)
	for i := range goals {
		goals[i] = uint64(i+1) * txsPerTerm * 10
	}
	group.Go(func() { w.follow(ctx, 0) })
	group.Go(func() { w.follow(ctx, 1) })
	var terms sync.WaitGroup
	for i := range writers {
		w.newest.Store(int64(i))
		term := &writer{world: w, rnd: rand.New(rand.NewPCG(seed, 100+uint64(i)))}
		terms.Go(func() { term.live(ctx, i) })
		// The next one comes while this one works, or has died, or sleeps.
		for w.confirmed.Load() < goals[i] && ctx.Err() == nil {
			pause(ctx, time.Millisecond)
		}
		pause(ctx, time.Duration(rnd.IntN(30))*time.Millisecond)
	}
	close(w.stop)
	terms.Wait()
	group.Wait()
	w.store.Wait()
	if ctx.Err() != nil {
		t.Fatalf("seed %d: no end within %s, at transaction %d", seed, runMax, w.confirmed.Load()/10)
	}

	// All that was confirmed is there for a new reader, and the bucket is sound.
	final := &state{State: catalog.New(), store: calm}
	f, err := shapelog.OpenFollower(ctx, calm, final, shapelog.FollowerOptions{})
	if err == nil {
		err = f.Sync(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if last := w.check(ctx, final.State, body.NewSource(calm, 1<<20)); last < w.confirmed.Load() {
		t.Errorf("seed %d: transactions up to %d were confirmed, the log ends with %d", seed, w.confirmed.Load(), last)
	}
	report, err := audit.Check(ctx, calm, nil)
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("seed %d: bucket check: %v, %+v", seed, err, report)
	}
	t.Logf("seed %d: %d transactions, %d terms, %d compactions, %d looks", seed, w.confirmed.Load()/10, w.terms.Load(), w.packs.Load(), w.looks.Load())
	if w.packs.Load() == 0 || w.looks.Load() == 0 {
		t.Errorf("seed %d: nothing was packed, or looked at", seed)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// state is a catalogue with its store: a shapelog.Recovery.
type state struct {
	*catalog.State
	store object.Reader
}

func (s *state) Load(ctx context.Context, c shapelog.Checkpoint) error {
	return s.State.Load(ctx, s.store, c.Generation, c.Shards)
}

func (s *state) Apply(seg *segment.Segment) error {
	_, err := s.State.Apply(seg.Meta, seg.Frames)
	return err
}

// has reports whether shape id has an entry at position op of the transaction.
func has(lsn uint64, op int, id shape.ID) bool { return (lsn/10+uint64(op)*3+uint64(id))%3 != 0 }

// ops is how many messages a transaction has.
func ops(lsn uint64) int { return 1 + int(lsn/10%4) }

func message(lsn uint64, op int) []byte {
	return fmt.Appendf(nil, `{"key":"%d","value":{"id":"%d","pad":"%060d"},"headers":{"operation":"insert","lsn":"%d","op_position":%d`,
		op, op, lsn, lsn, op)
}

// frames is the transaction as the stream has it, cut as the pipeline might cut it.
func frames(lsn uint64, rnd *rand.Rand) []segment.Frame {
	var all []segment.Frame
	f := segment.Frame{Visible: pg.LSN(lsn - 10), End: pg.LSN(lsn - 9)}
	add := func(op int) {
		f.Messages = append(f.Messages, segment.Message{Offset: shape.At(pg.LSN(lsn), uint64(op)), Body: message(lsn, op)})
		for id := range shape.ID(shapes) {
			if has(lsn, op, id+1) {
				at := -1
				for i := range f.Postings {
					if f.Postings[i].Shape == id+1 {
						at = i
					}
				}
				if at < 0 {
					at = len(f.Postings)
					f.Postings = append(f.Postings, segment.Posting{Shape: id + 1})
				}
				f.Postings[at].Refs = append(f.Postings[at].Refs, segment.NewRef(len(f.Messages)-1, 0))
			}
		}
	}
	for op := range ops(lsn) {
		add(op)
		if op+1 < ops(lsn) && rnd.IntN(4) == 0 {
			all = append(all, f)
			f = segment.Frame{Visible: pg.LSN(lsn - 10), End: pg.LSN(lsn - 9)}
		}
	}
	f.Visible, f.End = pg.LSN(lsn), pg.LSN(lsn+1)
	return append(all, f)
}

// follow is a reader that looks at everything again and again.
func (w *world) follow(ctx context.Context, number uint64) {
	rnd := rand.New(rand.NewPCG(w.seed, 1000+number))
	for ctx.Err() == nil {
		s := &state{State: catalog.New(), store: w.store}
		f, err := shapelog.OpenFollower(ctx, w.store, s, shapelog.FollowerOptions{})
		if err != nil {
			select {
			case <-w.stop:
				return
			default:
			}
			pause(ctx, time.Millisecond)
			continue
		}
		src := body.NewSource(w.store, 1<<16)
		for range 10 + rnd.IntN(100) { // then another process
			if f.Sync(ctx) == nil {
				w.check(ctx, s.State, src)
			}
			select {
			case <-w.stop:
				return
			default:
			}
			pause(ctx, time.Duration(rnd.IntN(20))*time.Millisecond)
		}
	}
}

// check reads the shapes and reports the last transaction they can be told of. It fails the test if anything but the
// beginning of the truth is there, each entry once and in order. What cannot be read at the moment is left out.
func (w *world) check(ctx context.Context, s *catalog.State, src *body.Source) uint64 {
	_, _, visible, _ := s.Position()
	for id := range shape.ID(shapes) {
		id++
		p, ok := s.Plan(shape.Handle{Shape: id}, shape.SnapshotEnd)
		if !ok {
			if visible > 10 {
				w.t.Errorf("seed %d: shape %d is gone", w.seed, id)
			}
			continue
		}
		b, err := src.Entries(ctx, &p, p.After, false)
		if err != nil {
			continue
		}
		var want []byte
		for lsn := uint64(20); lsn <= uint64(p.Visible); lsn += 10 {
			for op := range ops(lsn) {
				if has(lsn, op, id) {
					want = append(shape.AppendEnd(append(want, message(lsn, op)...), false), ',')
				}
			}
		}
		w.looks.Add(1)
		if got := bytes.TrimPrefix(b, []byte("[")); !bytes.Equal(got, bytes.TrimSuffix(want, []byte(","))) {
			w.t.Errorf("seed %d: shape %d up to %d has %d bytes, want %d; the first difference at %d",
				w.seed, id, p.Visible, len(got), len(want)-1, difference(got, want))
		}
	}
	return uint64(visible)
}

func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
