package shapelog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/dir"
	"github.com/shapeline/shapeline/internal/object/objecttest"
	"github.com/shapeline/shapeline/internal/segment"
)

// durables gathers what a writer reports.
type durables struct {
	mu   sync.Mutex
	seqs []uint64
}

func (d *durables) add(m segment.Meta) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seqs = append(d.seqs, m.Seq)
}

func (d *durables) list() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.seqs)
}

func TestAppendsAreReportedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objecttest.NewFaulty(t, object.NewMemory())
		store.Set(objecttest.Faults{LostRequest: 0.1, LostReply: 0.1, Ghost: 0.1, GhostDelay: time.Minute,
			BrokenRead: 0.1, ShortRead: 0.1, Slow: 0.8, SlowDelay: time.Second})
		var d durables
		var w *Writer
		for w == nil { // a takeover gives up at a broken read, and is tried again by its caller
			w, _ = OpenWriter(t.Context(), store, void{}, WriterOptions{OnDurable: d.add})
		}
		var want []uint64
		for i := range 50 {
			want = append(want, appendOne(t, w, i+1))
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.list(); !slices.Equal(got, want) {
			t.Errorf("reported %d, appended %d", got, want)
		}
		store.Set(objecttest.Faults{})
		seen := &reads{}
		if _, err := OpenFollower(t.Context(), store, seen, FollowerOptions{}); err != nil {
			t.Fatal(err)
		}
		if seen.last != 50 {
			t.Errorf("a reader sees transactions up to %d", seen.last)
		}
	})
}

// TestWindowCountsSlots: while the first slot is stuck, exactly a window of slots is filled.
func TestWindowCountsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		stuck := &held{Store: memory, key: SegmentKey(Window + 1), gate: make(chan struct{})}
		var d durables
		w := openWriter(t, stuck, WriterOptions{OnDurable: d.add})
		for i := range Window {
			appendOne(t, w, i+1)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var b segment.Builder
		b.Add(frame(9))
		before := b.Len()
		if _, err := w.Append(ctx, &b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("append to a full window: %v", err)
		}
		if b.Len() != before {
			t.Error("the builder was emptied")
		}
		if got := d.list(); len(got) != 0 {
			t.Errorf("%d were reported durable", got)
		}
		close(stuck.gate)
		appendOne(t, w, 9)
		synctest.Wait()
		if got := d.list(); len(got) != Window+1 {
			t.Errorf("%d were reported durable", got)
		}
	})
}

func TestStalledUntilTheStoreRecovers(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault objecttest.Faults
		want  error
	}{
		{"full", objecttest.Faults{Full: true}, object.ErrFull},
		{"down", objecttest.Faults{Down: true}, objecttest.ErrFault},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := objecttest.NewFaulty(t, object.NewMemory())
				var d durables
				w := openWriter(t, store, WriterOptions{OnDurable: d.add})
				store.Set(c.fault)
				appendOne(t, w, 1)
				time.Sleep(time.Hour)
				if since, err := w.Stalled(); !errors.Is(err, c.want) || time.Since(since).Round(time.Minute) != time.Hour {
					t.Errorf("stalled since %v: %v", since, err)
				}
				if n := store.Counts().Puts; n > 10_000 {
					t.Errorf("%d puts in an hour of trouble", n)
				}
				store.Set(objecttest.Faults{})
				time.Sleep(retryMax)
				if _, err := w.Stalled(); err != nil || len(d.list()) != 1 {
					t.Errorf("after the trouble: %v, durable %d", err, d.list())
				}
			})
		})
	}
}

func TestReplacedWriterStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		old := openWriter(t, store, WriterOptions{})
		openWriter(t, store, WriterOptions{})
		appendOne(t, old, 1)
		<-old.Done()
		if err := old.Err(); !errors.Is(err, ErrFenced) {
			t.Errorf("got %v", err)
		}
		var b segment.Builder
		b.Add(frame(2))
		if _, err := old.Append(t.Context(), &b); !errors.Is(err, ErrFenced) {
			t.Errorf("append: %v", err)
		}
		if err := old.Close(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("close: %v", err)
		}
	})
}

// TestSlowTakeoverFencesNoSuccessor: who was overtaken while it read the log stops there.
func TestSlowTakeoverFencesNoSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		slow := &held{Store: store, key: ControlKey, gate: make(chan struct{})}
		opened := make(chan error)
		go func() {
			_, err := OpenWriter(t.Context(), slow, void{}, WriterOptions{})
			opened <- err
		}()
		synctest.Wait()
		var d durables
		successor := openWriter(t, store, WriterOptions{OnDurable: d.add})
		close(slow.gate)
		if err := <-opened; !errors.Is(err, ErrFenced) {
			t.Errorf("the slow takeover ends with %v", err)
		}
		appendOne(t, successor, 1)
		synctest.Wait()
		if len(d.list()) != 1 || successor.Err() != nil {
			t.Errorf("the successor ends with %v", successor.Err())
		}
	})
}

func TestCheckpointIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		w := openWriter(t, store, WriterOptions{})
		seq := appendOne(t, w, 1)
		synctest.Wait()
		check := func(seq uint64, ok bool) {
			t.Helper()
			if err := w.Checkpoint(t.Context(), Checkpoint{Generation: seq, Seq: seq, Shards: 1}); (err == nil) != ok {
				t.Errorf("checkpoint at %d: %v", seq, err)
			}
		}
		check(0, false)
		check(seq+1, false)
		check(seq, true)
		check(seq-1, false)
		if err := w.Retire(t.Context(), seq+2); err == nil {
			t.Error("the floor passed the checkpoint")
		}
		openWriter(t, store, WriterOptions{})
		if err := w.Retire(t.Context(), 1); !errors.Is(err, ErrFenced) {
			t.Errorf("a replaced writer raises the floor: %v", err)
		}
		if _, err := w.Sweep(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("a replaced writer sweeps: %v", err)
		}
	})
}

func TestSweepKeepsTheYoungAndTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		w := openWriter(t, store, WriterOptions{})
		old := appendOne(t, w, 1)
		appendOne(t, w, 2)
		time.Sleep(Grace + time.Minute)
		last := appendOne(t, w, 3)
		synctest.Wait()
		if err := w.Checkpoint(t.Context(), Checkpoint{Generation: 1, Seq: last, Shards: 1}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ floor, first uint64 }{{old + 1, old + 1}, {last + 1, last}} {
			if err := w.Retire(t.Context(), c.floor); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			infos, err := store.List(t.Context(), LogPrefix, "", 1)
			if err != nil || infos[0].Key != SegmentKey(c.first) {
				t.Errorf("floor %d: the log begins with %v, %v; want %d", c.floor, infos, err, c.first)
			}
		}
	})
}

// TestWritersReplaceEachOther lets writers over a faulty directory take over from each other, in real time.
func TestWritersReplaceEachOther(t *testing.T) {
	inner, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store := objecttest.NewFaulty(t, inner)
	store.Set(objecttest.Faults{LostRequest: 0.05, LostReply: 0.1, Ghost: 0.1, GhostDelay: 20 * time.Millisecond,
		BrokenRead: 0.02, ShortRead: 0.02, Slow: 0.3, SlowDelay: 5 * time.Millisecond})
	var writers sync.WaitGroup
	var acked durables
	for range 3 {
		writers.Go(func() {
			for range 3 {
				w, err := OpenWriter(t.Context(), store, void{}, WriterOptions{OnDurable: acked.add})
				if err != nil {
					continue
				}
				for i := range 20 {
					var b segment.Builder
					b.Add(frame(i + 1))
					if _, err := w.Append(t.Context(), &b); err != nil {
						break
					}
				}
				_ = w.Close(t.Context())
			}
		})
	}
	writers.Wait()
	store.Wait()
	store.Set(objecttest.Faults{})
	seen := &reads{}
	if _, err := OpenFollower(t.Context(), store, seen, FollowerOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, seq := range acked.list() {
		if !slices.Contains(seen.seqs, seq) {
			t.Errorf("segment %d was acknowledged and is not in the log", seq)
		}
	}
}

// BenchmarkAppend is how many segments a second become durable, with a window under way.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("directory/%dKiB", size>>10), func(b *testing.B) {
			store, err := dir.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			benchmarkAppend(b, store, size)
		})
		b.Run(fmt.Sprintf("memory/%dKiB", size>>10), func(b *testing.B) {
			benchmarkAppend(b, forgetful{object.NewMemory()}, size)
		})
	}
}

func benchmarkAppend(b *testing.B, store object.Store, size int) {
	w := openWriter(b, store, WriterOptions{})
	f := frame(1)
	f.Messages[0].Body = make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		var s segment.Builder
		s.Add(f)
		if _, err := w.Append(b.Context(), &s); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// forgetful drops segments, so that a long benchmark needs no memory.
type forgetful struct{ object.Store }

func (f forgetful) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	if c.Absent() && key != ControlKey {
		body = nil
	}
	return f.Store.Put(ctx, key, body, c)
}
