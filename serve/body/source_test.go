package body_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
	"github.com/shapeline/shapeline/serve/body"
)

const id shape.ID = 5

// script writes segments and folds them into a state, as a log would.
type script struct {
	t     *testing.T
	store *counted
	state *catalog.State
	seq   uint64
}

// counted counts the reads of a store.
type counted struct {
	*object.Memory
	gets atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	c.gets.Add(1)
	return c.Memory.Get(ctx, key, r)
}

func newScript(t *testing.T) *script {
	s := &script{t: t, store: &counted{Memory: object.NewMemory()}, state: catalog.New()}
	info := &catalog.Info{ID: id, Relation: &pg.Relation{}}
	s.segment(1, segment.Frame{Records: []segment.Record{catalog.OpenedRecord(info, &catalog.Base{Pages: 1})}})
	return s
}

func (s *script) segment(epoch uint64, frames ...segment.Frame) {
	s.t.Helper()
	var b segment.Builder
	for i := range frames {
		b.Add(&frames[i])
	}
	s.seq++
	bytes, _ := b.Seal(segment.Meta{Seq: s.seq, Epoch: epoch})
	if _, err := s.store.Put(s.t.Context(), shapelog.SegmentKey(s.seq), bytes, object.IfAbsent()); err != nil {
		s.t.Fatal(err)
	}
	seg, err := segment.Decode(bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.state.Apply(seg.Meta, seg.Frames); err != nil {
		s.t.Fatal(err)
	}
}

// frame has entries of the shape at the given offsets, and some of another.
func frame(visible pg.LSN, offsets ...string) segment.Frame {
	f := segment.Frame{Visible: visible, End: visible + 1}
	mine, other := segment.Posting{Shape: id}, segment.Posting{Shape: id + 1}
	for i, text := range offsets {
		o, err := shape.ParseOffset(text)
		if err != nil {
			panic(err)
		}
		f.Messages = append(f.Messages, segment.Message{Offset: o, Body: fmt.Appendf(nil, `{{"%s"`, text)})
		mine.Refs = append(mine.Refs, segment.NewRef(i, 0))
		other.Refs = append(other.Refs, segment.NewRef(i, segment.RefLast))
	}
	if offsets != nil {
		f.Postings = []segment.Posting{other, mine}
	}
	return f
}

// read returns the offsets of what Entries gives behind after.
func (s *script) read(source *body.Source, after string) string {
	s.t.Helper()
	o, err := shape.ParseOffset(after)
	if err != nil {
		s.t.Fatal(err)
	}
	plan, ok := s.state.Plan(shape.Handle{Shape: id}, o)
	if !ok {
		s.t.Fatal("no plan")
	}
	got, err := source.Entries(s.t.Context(), &plan, o, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.NewReplacer(`{{"`, "", `"}}`, "", "[", "", ",", " ").Replace(string(got))
}

// TestEntries: entries come once and in order, however transactions were cut, read again and spread over segments.
func TestEntries(t *testing.T) {
	s := newScript(t)
	s.segment(1, frame(10, "10_0", "10_2"))
	s.segment(1, frame(20, "20_0"), frame(20, "30_0", "30_2"))         // 30 is not complete yet
	s.segment(1, frame(30, "30_4"))                                    // now it is
	s.segment(1, frame(30, "40_0"))                                    // cut by a crash
	s.segment(2, frame(40, "40_0", "40_2"), frame(50, "50_0"))         // comes again whole
	s.segment(2, frame(50, "40_0", "40_2", "50_0"), frame(60, "60_0")) // the stream was read again
	s.segment(2, frame(60, "60_0", "60_2"))                            // and once more
	for _, c := range []struct{ after, want string }{
		{"0_inf", "10_0 10_2 20_0 30_0 30_2 30_4 40_0 40_2 50_0 60_0 60_2"},
		{"10_1", "10_2 20_0 30_0 30_2 30_4 40_0 40_2 50_0 60_0 60_2"},
		{"30_0", "30_2 30_4 40_0 40_2 50_0 60_0 60_2"},
		{"40_0", "40_2 50_0 60_0 60_2"},
		{"55_0", "60_0 60_2"},
		{"60_2", ""},
	} {
		for name, bytes := range map[string]int64{"cached": 1 << 20, "cold": 1} {
			if got := s.read(body.NewSource(s.store, bytes), c.after); got != c.want {
				t.Errorf("%s, behind %s:\n got %s\nwant %s", name, c.after, got, c.want)
			}
		}
	}
}

func TestEntriesSSE(t *testing.T) {
	s := newScript(t)
	s.segment(1, frame(10, "10_0", "10_2"))
	plan, _ := s.state.Plan(shape.Handle{Shape: id}, shape.SnapshotEnd)
	got, err := body.NewSource(s.store, 0).Entries(t.Context(), &plan, shape.SnapshotEnd, true)
	if want := "data: {{\"10_0\"}}\n\ndata: {{\"10_2\"}}\n\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestSegmentReads: a segment is read once for all who want it, and not at all if it was kept.
func TestSegmentReads(t *testing.T) {
	s := newScript(t)
	for n := range 10 {
		lsn := pg.LSN(10 * (n + 1))
		s.segment(1, frame(lsn, shape.At(lsn, 0).String()))
	}
	source := body.NewSource(s.store, 1<<20)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { s.read(source, "0_inf") })
	}
	group.Wait()
	if n := s.store.gets.Load(); n != 10 {
		t.Errorf("%d reads of 10 segments", n)
	}
}

func TestDamage(t *testing.T) {
	s := newScript(t)
	s.segment(1, frame(10, "10_0"))
	plan, _ := s.state.Plan(shape.Handle{Shape: id}, shape.SnapshotEnd)
	source := body.NewSource(s.store, 0)
	segmentKey, h := shapelog.SegmentKey(2), shape.Handle{Shape: id}
	if _, err := source.Page(t.Context(), h, 0, false); !errors.Is(err, body.ErrNoPage) {
		t.Errorf("page: %v", err)
	}
	for _, k := range []string{segmentKey, h.PageKey(0)} {
		if _, err := s.store.Put(t.Context(), k, []byte("damaged"), object.Always()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := source.Entries(t.Context(), &plan, shape.SnapshotEnd, false); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("segment: %v", err)
	}
	if _, err := source.Page(t.Context(), h, 0, false); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("page: %v", err)
	}
	notJSON := segment.AppendPage(nil, segment.Page{Body: []byte("[")})
	if _, err := s.store.Put(t.Context(), h.PageKey(0), notJSON, object.Always()); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Page(t.Context(), h, 0, true); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("page as SSE: %v", err)
	}
}
