package compact_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/ingest/compact"
	"github.com/shapeline/shapeline/internal/audit"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
	"github.com/shapeline/shapeline/serve/body"
)

// rig is a log with its writer, and everything that the compactor needs of a pipeline.
type rig struct {
	t     *testing.T
	store object.Store
	state *catalog.State
	w     *shapelog.Writer

	mu      sync.Mutex
	durable uint64
	grown   chan struct{} // closed and replaced when durable moves
}

func newRig(t *testing.T, store object.Store) *rig {
	r := &rig{t: t, store: store, grown: make(chan struct{})}
	r.open()
	return r
}

// open takes the log over, as the next term of ingest does.
func (r *rig) open() {
	r.t.Helper()
	r.state = catalog.New()
	var err error
	r.w, err = shapelog.OpenWriter(r.t.Context(), r.store, r, shapelog.WriterOptions{OnDurable: func(m segment.Meta) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.durable = m.Seq
		close(r.grown)
		r.grown = make(chan struct{})
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.durable = r.w.Next() - 1
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.w.Close(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// Load and Apply make r a shapelog.Recovery.
func (r *rig) Load(ctx context.Context, c shapelog.Checkpoint) error {
	return r.state.Load(ctx, r.store, c.Generation, c.Shards)
}

func (r *rig) Apply(s *segment.Segment) error {
	_, err := r.state.Apply(s.Meta, s.Frames)
	return err
}

// flush stores a segment and waits for it.
func (r *rig) flush(frames ...segment.Frame) {
	r.t.Helper()
	var b segment.Builder
	for i := range frames {
		b.Add(&frames[i])
	}
	seq, err := r.w.Append(r.t.Context(), &b)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.state.Apply(segment.Meta{Seq: seq, Epoch: r.w.Epoch()}, frames); err != nil {
		r.t.Fatal(err)
	}
	for {
		r.mu.Lock()
		durable, grown := r.durable, r.grown
		r.mu.Unlock()
		if durable >= seq {
			return
		}
		<-grown
	}
}

// Durable and Append make r a compact.Log.
func (r *rig) Durable() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.durable
}

func (r *rig) Append(_ context.Context, rec segment.Record) error {
	_, _, visible, end := r.state.Position()
	r.flush(segment.Frame{Visible: visible, End: end, Records: []segment.Record{rec}})
	return nil
}

func (r *rig) compactor() *compact.Compactor {
	return compact.New(compact.Config{
		Store: r.store, State: r.state, Log: r, Writer: r.w, Epoch: r.w.Epoch(), Logger: slog.New(slog.DiscardHandler),
	})
}

func opened(id shape.ID) segment.Record {
	return catalog.OpenedRecord(&catalog.Info{
		ID: id, Definition: shape.Definition{Table: shape.Table{Schema: "public", Name: "t"}}.Canonical(), Canonical: id.String(),
		Relation: &pg.Relation{OID: 7, Schema: "public", Name: "t", Columns: []pg.Column{{Name: "id", PK: 1}}},
		Columns:  []int{0}, Schema: json.RawMessage(`{"id":{"type":"int4"}}`), Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}, &catalog.Base{Pages: 1})
}

// change is a transaction: which shapes have each of its messages.
type change struct {
	lsn    pg.LSN
	shapes [][]shape.ID
}

// frames cuts a transaction into frames, of which only the last makes it visible.
func (c change) frames(before pg.LSN, r *rand.Rand) []segment.Frame {
	var all []segment.Frame
	f := segment.Frame{Visible: before, End: before + 1}
	postings := make(map[shape.ID]int)
	for op, ids := range c.shapes {
		if len(f.Messages) > 0 && r.IntN(4) == 0 {
			all = append(all, f)
			f = segment.Frame{Visible: before, End: before + 1}
			clear(postings)
		}
		f.Messages = append(f.Messages, segment.Message{
			Offset: shape.At(c.lsn, uint64(op)),
			Body:   fmt.Appendf(nil, `{"key":"%d","value":{"id":"%d"},"headers":{"operation":"insert","lsn":"%d"`, op, op, c.lsn),
		})
		for _, id := range ids {
			at, ok := postings[id]
			if !ok {
				at = len(f.Postings)
				postings[id] = at
				f.Postings = append(f.Postings, segment.Posting{Shape: id})
			}
			marks := segment.Ref(0)
			if op%5 == 4 {
				marks = segment.RefChunkEnd
			}
			f.Postings[at].Refs = append(f.Postings[at].Refs, segment.NewRef(len(f.Messages)-1, marks))
		}
	}
	f.Visible, f.End = c.lsn, c.lsn+1
	return append(all, f)
}

// grow adds n transactions behind before to the log, in segments that know nothing of where transactions end; now and
// then the writer is replaced in the midst of one.
func (r *rig) grow(rnd *rand.Rand, before pg.LSN, n, shapes int) (last pg.LSN) {
	r.t.Helper()
	for range n {
		c := change{lsn: before + 10}
		for range 1 + rnd.IntN(6) {
			var ids []shape.ID
			for id := range shapes {
				if rnd.IntN(3) == 0 {
					ids = append(ids, shape.ID(id+1))
				}
			}
			c.shapes = append(c.shapes, ids)
		}
		frames := c.frames(before, rnd)
		if rnd.IntN(20) == 0 { // cut by a crash, and told again
			for _, f := range frames[:len(frames)-1] {
				r.flush(f)
			}
			r.close()
			r.open()
		}
		for len(frames) > 0 {
			k := 1 + rnd.IntN(len(frames))
			r.flush(frames[:k]...)
			frames = frames[k:]
		}
		before = c.lsn
	}
	return before
}

// entries is everything that a client gets behind after.
func (r *rig) entries(s *body.Source, id shape.ID, after shape.Offset) (string, error) {
	var all []string
	for {
		p, ok := r.state.Plan(shape.Handle{Shape: id}, after)
		if !ok {
			return "", errors.New("no shape")
		}
		b, err := s.Entries(r.t.Context(), &p, p.After, false)
		if err != nil {
			return "", err
		}
		all = append(all, string(b)+"] up to "+p.End.String())
		if !p.Closed {
			return strings.Join(all, "\n"), nil
		}
		after = p.End
	}
}

// TestHistories packs random histories: every client, wherever it goes on, gets the same bytes as before; segments are
// deleted afterwards and nobody misses them; a bucket check finds nothing.
func TestHistories(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			r := newRig(t, object.NewMemory())
			const shapes = 5
			var records []segment.Record
			for id := range shapes {
				records = append(records, opened(shape.ID(id+1)))
				page := segment.AppendPage(nil, segment.Page{Last: true, Body: []byte("[]")})
				if _, err := r.store.Put(t.Context(), shape.Handle{Shape: shape.ID(id + 1)}.PageKey(0), page, object.Always()); err != nil {
					t.Fatal(err)
				}
			}
			r.flush(segment.Frame{Visible: 5, End: 6, Records: records})
			lsn := r.grow(rnd, 10, 150+rnd.IntN(100), shapes)
			if rnd.IntN(2) == 0 { // a shape is dropped, and another transaction is under way
				if err := r.Append(t.Context(), catalog.DroppedRecord(shapes, nil)); err != nil {
					t.Fatal(err)
				}
				c := change{lsn: lsn + 10, shapes: [][]shape.ID{{1, 2}, {1}}}
				f := c.frames(lsn, rnd)[0]
				f.Visible, f.End = lsn, lsn+1
				r.flush(f)
			}

			type place struct {
				id    shape.ID
				after shape.Offset
			}
			want := make(map[place]string)
			source := body.NewSource(r.store, 1<<20)
			for id := range shapes - 1 {
				for range 40 {
					p := place{shape.ID(id + 1), shape.At(pg.LSN(rnd.Uint64N(uint64(lsn)+10)), rnd.Uint64N(6))}
					var err error
					if want[p], err = r.entries(source, p.id, p.after); err != nil {
						t.Fatal(err)
					}
				}
			}
			old, _ := r.state.Plan(shape.Handle{Shape: 1}, shape.SnapshotEnd)
			segments := len(r.state.Extents(1))

			if err := r.compactor().Work(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			compare := func(when string) {
				t.Helper()
				cold := body.NewSource(r.store, 1<<20)
				for p, w := range want {
					got, err := r.entries(cold, p.id, p.after)
					if err != nil || got != w {
						t.Fatalf("seed %d, %s, shape %s behind %s (%v):\n%s\nwant\n%s", seed, when, p.id, p.after, err, got, w)
					}
				}
			}
			compare("packed")
			if now := len(r.state.Extents(1)); now > segments/2 {
				t.Errorf("seed %d: %d extents before, %d after", seed, segments, now)
			}

			// The next term finds everything, and goes on where this one stopped.
			c := r.state.Checkpoint()
			if err := c.Save(t.Context(), r.store, 1<<40); err != nil {
				t.Fatal(err)
			}
			if err := r.w.Checkpoint(t.Context(), shapelog.Checkpoint{Generation: 1 << 40, Seq: c.Seq, Shards: len(c.Shards)}); err != nil {
				t.Fatal(err)
			}
			if err := r.w.Retire(t.Context(), min(r.state.Floor(), c.Seq+1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * shapelog.Grace) // the store's clock; nothing else runs
			// Sweep takes the store's clock from control, which has to be written for that.
			if err := r.w.Checkpoint(t.Context(), shapelog.Checkpoint{Generation: 1<<40 + 1, Seq: c.Seq, Shards: len(c.Shards)}); err != nil {
				t.Fatal(err)
			}
			if err := c.Save(t.Context(), r.store, 1<<40+1); err != nil {
				t.Fatal(err)
			}
			deleted, err := r.w.Sweep(t.Context())
			if err != nil || deleted < 32 {
				t.Fatalf("seed %d: %d segments deleted, %v", seed, deleted, err)
			}
			compare("swept")
			if _, err := body.NewSource(r.store, 0).Entries(t.Context(), &old, shape.SnapshotEnd, false); !errors.Is(err, body.ErrCollected) {
				t.Errorf("seed %d: a reader that slept got %v", seed, err)
			}
			r.close()
			result, err := audit.Check(t.Context(), r.store, nil)
			if err != nil || len(result.Problems) > 0 {
				t.Fatalf("seed %d: %v, %+v", seed, err, result.Problems)
			}
			r.open()
			compare("taken over")
			if err := r.compactor().Work(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			compare("packed by the next")
			r.close()
		})
	}
}

// TestFailures lets each request of the compactor fail in turn: the next attempt ends the work, and nothing is lost.
func TestFailures(t *testing.T) {
	store := &failing{Store: object.NewMemory()}
	r := newRig(t, store)
	r.flush(segment.Frame{Visible: 5, End: 6, Records: []segment.Record{opened(1), opened(2)}})
	lsn := r.grow(rand.New(rand.NewPCG(1, 1)), 10, 200, 2)
	want, err := r.entries(body.NewSource(store, 1<<20), 1, shape.SnapshotEnd)
	if err != nil {
		t.Fatal(err)
	}
	for k := 1; ; k++ {
		c := r.compactor()
		store.failAt(k)
		err := c.Work(t.Context(), false)
		reached := store.failAt(0)
		if got, rerr := r.entries(body.NewSource(store, 1<<20), 1, shape.SnapshotEnd); rerr != nil || got != want {
			t.Fatalf("after failure %d (%v): %v", k, err, rerr)
		}
		if reached && err == nil {
			t.Errorf("failure %d went unnoticed", k)
		}
		if err == nil {
			break
		}
	}
	if p, _ := r.state.Plan(shape.Handle{Shape: 1}, shape.SnapshotEnd); p.Extents[0].Pack == nil || p.Last.Tx > uint64(lsn) {
		t.Errorf("not packed: %+v", p.Extents[0])
	}
	r.close()
}

var errTold = errors.New("told to fail")

// failing is a store whose k-th read or write of packs and segments by the compactor fails.
type failing struct {
	object.Store
	mu   sync.Mutex
	left int
}

// failAt sets the request that fails, 0 for none, and reports whether the one before was reached.
func (f *failing) failAt(k int) (reached bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reached = f.left == 0
	f.left = k
	if k == 0 {
		f.left = -1
	}
	return reached
}

func (f *failing) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left == 0
}

func (f *failing) Get(ctx context.Context, key string, rg object.Range) (*object.Object, error) {
	if strings.HasPrefix(key, "log/") && f.fails() {
		return nil, errTold
	}
	return f.Store.Get(ctx, key, rg)
}

func (f *failing) Put(ctx context.Context, key string, b []byte, c object.Condition) (string, error) {
	if strings.HasPrefix(key, "pack/") && f.fails() {
		return "", errTold
	}
	return f.Store.Put(ctx, key, b, c)
}

// TestQuiet: with nothing to pack, nothing is asked of the store (R7).
func TestQuiet(t *testing.T) {
	r := newRig(t, object.NewMemory())
	r.flush(segment.Frame{Visible: 5, End: 6, Records: []segment.Record{opened(1)}})
	for range 20 {
		r.flush(segment.Frame{Visible: 5, End: 6})
	}
	c := compact.New(compact.Config{State: r.state, Log: r, Logger: slog.New(slog.DiscardHandler)}) // no store at all
	if err := c.Work(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.close()
}
