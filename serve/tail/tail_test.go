package tail_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/tail"
)

const one = shape.ID(1)

// counted counts the reads of a store, and is slow or blocked when told to be.
type counted struct {
	object.Store
	gets atomic.Int64
	slow atomic.Int64 // how long a put takes, nanoseconds
}

func (c *counted) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key, r)
}

func (c *counted) Put(ctx context.Context, key string, b []byte, cond object.Condition) (string, error) {
	time.Sleep(time.Duration(c.slow.Load()))
	return c.Store.Put(ctx, key, b, cond)
}

// pipeline writes transactions as ingest does: the same ones again from what was durable, whoever writes.
type pipeline struct {
	t     *testing.T
	store *counted
	hub   *feed.Hub
	w     *shapelog.Writer
	state *catalog.State
	lsn   pg.LSN // of the last transaction made
}

func (p *pipeline) Load(ctx context.Context, c shapelog.Checkpoint) error {
	p.state = catalog.New()
	return p.state.Load(ctx, p.store, c.Generation, c.Shards)
}

func (p *pipeline) Apply(s *segment.Segment) error {
	_, err := p.state.Apply(s.Meta, s.Frames)
	return err
}

func (p *pipeline) open() {
	p.t.Helper()
	w, err := shapelog.OpenWriter(p.t.Context(), p.store, p, shapelog.WriterOptions{OnDurable: func(m segment.Meta) { p.hub.Durable(m.Seq) }})
	if err != nil {
		p.t.Fatal(err)
	}
	_, _, p.lsn, _ = p.state.Position()
	p.w = w
	p.hub.Begin(w.Epoch(), w.Next())
}

// die ends the term; what is under way may or may not have been stored.
func (p *pipeline) die() {
	p.hub.End()
	ctx, cancel := context.WithCancel(p.t.Context())
	cancel()
	_ = p.w.Close(ctx)
}

// segment makes n frames, publishes them, and begins to store them.
func (p *pipeline) segment(n int, records ...segment.Record) {
	p.t.Helper()
	var b segment.Builder
	seq := p.w.Next()
	for i := range n {
		p.lsn += 10
		f := segment.Frame{Visible: p.lsn, End: p.lsn + 1, Messages: []segment.Message{{
			Offset: shape.At(p.lsn, 0), Body: fmt.Appendf(nil, `{"n":"%d","headers":{"x":"y"`, p.lsn),
		}}, Postings: []segment.Posting{{Shape: one, Refs: []segment.Ref{segment.NewRef(0, segment.RefLast)}}}}
		if i == n/2 {
			f.Records = records
		}
		p.hub.Publish(seq, b.Add(&f))
		time.Sleep(time.Millisecond)
	}
	if _, err := p.w.Append(p.t.Context(), &b); err != nil {
		p.t.Fatal(err)
	}
}

func openedRecord(id shape.ID) segment.Record {
	return catalog.OpenedRecord(&catalog.Info{ID: id, Canonical: id.String(), Relation: &pg.Relation{Schema: "public", Name: "t"}}, &catalog.Base{Pages: 1})
}

// log is what a client has read once it is up to date.
func log(t *testing.T, state *catalog.State, src *body.Source) (entries []string, last shape.Offset) {
	t.Helper()
	p, ok := state.Plan(shape.Handle{Shape: one}, shape.SnapshotEnd)
	if !ok || p.Last == shape.SnapshotEnd {
		return nil, shape.SnapshotEnd
	}
	b, err := src.Entries(t.Context(), &p, p.After, false)
	if err != nil {
		t.Fatal(err)
	}
	err = shape.Messages(append(b, ']'), func(m []byte) error {
		entries = append(entries, string(m))
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return entries, p.Last
}

// follower is a process that follows the log.
type follower struct {
	*tail.Tail
	state *catalog.State
	src   *body.Source
	stop  func()
}

func (p *pipeline) follow(with tail.Feed) *follower {
	ctx, cancel := context.WithCancel(p.t.Context())
	f := &follower{state: catalog.New(), src: body.NewSource(p.store, 1<<20)}
	f.Tail = tail.New(tail.Config{
		Store: p.store, State: f.state, Bodies: f.src, Feed: with, Log: slog.New(slog.DiscardHandler),
		Waiting: func() bool { return true }, Changed: func(*catalog.Delta, bool) {},
	})
	ended := make(chan struct{})
	go func() { // waited for by stop
		defer close(ended)
		_ = f.Run(ctx)
	}()
	f.stop = func() { cancel(); <-ended }
	<-f.Loaded()
	return f
}

func bubble(t *testing.T, f func(t *testing.T, p *pipeline)) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipeline{t: t, store: &counted{Store: object.NewMemory()}, hub: &feed.Hub{}}
		p.open()
		defer func() { p.die() }()
		f(t, p)
	})
}

// TestEarly: frames are seen before their segment is stored, but for those that bring records, and what follows them.
// While the feed is up the bucket is asked nothing.
func TestEarly(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipeline) {
		p.segment(1, openedRecord(one))
		f := p.follow(p.hub)
		defer f.stop()
		time.Sleep(5 * time.Second)
		p.store.slow.Store(int64(time.Second))
		gets := p.store.gets.Load()
		p.segment(3)
		synctest.Wait()
		if all, last := log(t, f.state, f.src); len(all) != 4 || last != shape.At(40, 0) {
			t.Errorf("before it is durable: %d entries, up to %s", len(all), last)
		}
		p.segment(4, openedRecord(2))
		synctest.Wait()
		if all, last := log(t, f.state, f.src); len(all) != 6 || last != shape.At(60, 0) {
			t.Errorf("in front of a record: %d entries, up to %s", len(all), last)
		}
		time.Sleep(10 * time.Second)
		if all, last := log(t, f.state, f.src); len(all) != 8 || last != shape.At(80, 0) {
			t.Errorf("when it is durable: %d entries, up to %s", len(all), last)
		}
		if err := f.Fresh(t.Context()); err != nil || p.store.gets.Load() != gets {
			t.Errorf("%d reads of the bucket, %v", p.store.gets.Load()-gets, err)
		}
		if f.Certain() {
			t.Error("a feed that has just begun is believed to have told all that the one before it did")
		}
		if time.Sleep(time.Minute); !f.Certain() {
			t.Error("a feed that has lasted is not believed")
		}
	})
}

// TestTakenBack: what a dead writer had shown is taken back, and comes again from the next.
func TestTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipeline) {
		p.segment(1, openedRecord(one))
		f := p.follow(p.hub)
		defer f.stop()
		time.Sleep(5 * time.Second)
		p.store.slow.Store(int64(time.Hour))
		p.segment(3)
		synctest.Wait()
		before, _ := log(t, f.state, f.src)
		p.die()
		synctest.Wait()
		if all, _ := log(t, f.state, f.src); len(all) != 1 || len(before) != 4 {
			t.Errorf("%d entries, then %d", len(before), len(all))
		}
		p.store.slow.Store(0)
		p.open()
		p.segment(3)
		time.Sleep(5 * time.Second)
		if all, _ := log(t, f.state, f.src); strings.Join(all, "") != strings.Join(before, "") {
			t.Errorf("came again as %q, was %q", all, before)
		}
	})
}

// TestRandom: whatever happens to writers, stores and connections, a follower shows a beginning of the log, and ends
// with all of it.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		bubble(t, func(t *testing.T, p *pipeline) {
			rnd := rand.New(rand.NewPCG(seed, 5))
			p.segment(1, openedRecord(one))
			f := p.follow(p.hub)
			check := func(when string) int {
				all, _ := log(t, f.state, f.src)
				for i, e := range all {
					if want := fmt.Sprintf(`{"n":"%d","headers":{"x":"y","last":true}}`, 10*(i+1)); e != want {
						t.Fatalf("seed %d, %s: entry %d is %s, want %s", seed, when, i, e, want)
					}
				}
				return len(all)
			}
			for step := range 80 {
				p.store.slow.Store(int64(rnd.IntN(200)) * int64(time.Millisecond))
				switch rnd.IntN(12) {
				case 0:
					p.die()
					time.Sleep(time.Duration(rnd.IntN(3)) * time.Second)
					p.open()
				case 1:
					f.stop()
					f = p.follow(p.hub)
				case 2:
					time.Sleep(time.Duration(rnd.IntN(6000)) * time.Millisecond)
				case 3:
					if err := f.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				case 4:
					p.hub.Publish(p.w.Next()+100, make([]byte, 17<<20)) // all subscribers lose the feed
					p.hub.Begin(p.w.Epoch(), p.w.Next())
				case 5:
					p.segment(1+rnd.IntN(4), openedRecord(shape.ID(step+2)))
				default:
					p.segment(1 + rnd.IntN(4))
				}
				synctest.Wait()
				check(fmt.Sprint("step ", step))
			}
			time.Sleep(10 * time.Second)
			if n := check("the end"); pg.LSN(10*n) != p.lsn {
				t.Fatalf("seed %d: %d entries, the last transaction is %d", seed, n, p.lsn)
			}
			f.stop()
		})
	}
}
