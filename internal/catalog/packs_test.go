package catalog_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

func plan(t *testing.T, s *catalog.State, h shape.Handle, after shape.Offset) catalog.Plan {
	t.Helper()
	p, ok := s.Plan(h, after)
	if !ok {
		t.Fatalf("no shape %s", h)
	}
	return p
}

// grown returns a state with shapes 5 and 6: 5 has an entry in each of the segments 2 to 9, 6 in 3 only.
func grown(t *testing.T) *catalog.State {
	t.Helper()
	s := catalog.New()
	apply(t, s, 1, 1, frame(5, []segment.Record{
		catalog.OpenedRecord(info(5), &catalog.Base{Pages: 1}), catalog.OpenedRecord(info(6), &catalog.Base{Pages: 1}),
	}))
	for seq := uint64(2); seq < 10; seq++ {
		at := shape.At(pg.LSN(seq*10), 0)
		entries := []entry{{5, at, 0}}
		if seq == 3 {
			entries = append(entries, entry{6, at, segment.RefChunkEnd})
		}
		apply(t, s, seq, 1, frame(pg.LSN(seq*10), nil, entries...))
	}
	return s
}

func TestPacked(t *testing.T) {
	s := grown(t)
	if s.Packable() != 9 || s.Floor() != 2 {
		t.Errorf("packable %d, floor %d", s.Packable(), s.Floor())
	}
	early := plan(t, s, info(5).Handle(), shape.SnapshotEnd)
	first := catalog.Pack{Level: 1, First: 2, Last: 5, Sum: 7, Size: 100, Index: 50}
	apply(t, s, 10, 1, frame(100, []segment.Record{catalog.PackedRecord(first, nil)}))

	x := extents(t, s, 5, shape.SnapshotEnd)
	if len(x) != 5 || x[0].Pack == nil || *x[0].Pack != first || x[0].First != shape.At(20, 0) || x[0].Last != shape.At(50, 0) ||
		x[1].Seq != 6 {
		t.Errorf("extents %+v", x)
	}
	if len(early.Extents) != 8 || early.Extents[0].Pack != nil {
		t.Errorf("a plan changed after it was made: %+v", early.Extents)
	}
	if x := extents(t, s, 5, shape.At(60, 0)); len(x) != 3 || x[0].Seq != 7 {
		t.Errorf("extents behind the pack %+v", x)
	}
	if s.Floor() != 6 {
		t.Errorf("floor %d", s.Floor())
	}

	// Packs merge; a shape is lifted out into a chunk of its own.
	second := catalog.Pack{Level: 1, First: 6, Last: 9, Sum: 8}
	merged, chunk := catalog.Pack{Level: 2, First: 2, Last: 9, Sum: 9}, catalog.Pack{Level: 2, Shape: 6, First: 2, Last: 9, Sum: 10}
	apply(t, s, 11, 1, frame(110, []segment.Record{catalog.PackedRecord(second, nil)}))
	if got := s.Stretches(2, 9); len(got) != 2 || len(got[0].Extents) != 2 || len(got[1].Chunks) != 1 {
		t.Errorf("stretches %+v", got)
	}
	apply(t, s, 12, 1, frame(120, []segment.Record{catalog.PackedRecord(merged, []catalog.Pack{chunk})}))
	five, six := extents(t, s, 5, shape.SnapshotEnd), extents(t, s, 6, shape.SnapshotEnd)
	if len(five) != 1 || *five[0].Pack != merged || len(six) != 1 || *six[0].Pack != chunk {
		t.Errorf("extents %+v and %+v", five, six)
	}
	if packs := s.Packs(); len(packs) != 2 || s.Floor() != 13 {
		t.Errorf("packs %v, floor %d", packs, s.Floor())
	}
	if merged.Key() != "pack/02/0000000000000002-0000000000000009-00000009" ||
		chunk.Key() != "shapes/0000000000000006/chunk/0000000000000002-0000000000000009-0000000a" {
		t.Errorf("keys %s %s", merged.Key(), chunk.Key())
	}
}

func TestPendingIsNotPackable(t *testing.T) {
	s := grown(t)
	apply(t, s, 10, 1, frame(90, nil, entry{5, shape.At(200, 0), 0}))
	if s.Packable() != 9 || s.Floor() != 2 {
		t.Errorf("packable %d, floor %d", s.Packable(), s.Floor())
	}
	apply(t, s, 11, 1, frame(200, nil))
	if s.Packable() != 11 {
		t.Errorf("packable %d after the commit", s.Packable())
	}
}

func TestLaterBases(t *testing.T) {
	s, old := grown(t), info(5).Handle()
	next := catalog.Rebase{Gen: 77, At: shape.At(50, 0), Made: 1000, Base: catalog.Base{Pages: 3, Rows: 9}}
	d := apply(t, s, 10, 1, frame(100, []segment.Record{catalog.RebasedRecord(5, next)}))
	h := shape.Handle{Shape: 5, Base: 77}
	if !slices.Equal(d.Rebased, []shape.ID{5}) || plan(t, s, old, shape.Before).Newest != h {
		t.Errorf("delta %+v, newest %s", d, plan(t, s, old, shape.Before).Newest)
	}
	for _, c := range []struct {
		h      shape.Handle
		o      shape.Offset
		after  shape.Offset
		pages  uint32 // 0: no base
		behind bool
	}{
		{old, shape.Before, shape.SnapshotEnd, 1, false},
		{h, shape.Before, shape.At(50, 0), 3, false},
		{h, shape.SnapshotEnd, shape.At(50, 0), 3, false},
		{h, shape.Page(1), shape.At(50, 0), 3, false},
		{h, shape.At(70, 0), shape.At(70, 0), 3, false},
		{old, shape.At(30, 0), shape.At(30, 0), 1, false},
		{shape.Handle{Shape: 5, Base: 9}, shape.SnapshotEnd, shape.At(90, 0), 0, true},
		{shape.Handle{Shape: 5, Base: 9}, shape.At(70, 0), shape.At(70, 0), 0, false},
	} {
		p := plan(t, s, c.h, c.o)
		if p.After != c.after || p.Behind != c.behind || (p.Base == nil) != (c.pages == 0) || p.Base != nil && p.Base.Pages != c.pages {
			t.Errorf("%s at %s: %+v", c.h, c.o, p)
		}
	}

	// Retention ends: the old base and what lies before the new one are no more.
	d = apply(t, s, 11, 1, frame(110, []segment.Record{catalog.TrimmedRecord(5, next.At)}))
	if !slices.Equal(d.Trimmed, []shape.ID{5}) {
		t.Errorf("delta %+v", d)
	}
	for _, c := range []struct {
		h      shape.Handle
		o      shape.Offset
		behind bool
	}{
		{old, shape.Before, true}, {old, shape.SnapshotEnd, true}, {old, shape.At(49, 3), true}, {old, shape.At(50, 0), false},
		{old, shape.At(90, 0), false}, {h, shape.Before, false}, {h, shape.At(50, 0), false},
	} {
		if p := plan(t, s, c.h, c.o); p.Behind != c.behind || p.Newest != h {
			t.Errorf("%s at %s: %+v", c.h, c.o, p)
		}
	}
	if x := extents(t, s, 5, shape.At(50, 0)); len(x) != 4 || x[0].Seq != 6 || s.Floor() != 3 { // 3 is shape 6's
		t.Errorf("extents %+v, floor %d", x, s.Floor())
	}

	// All of it survives a checkpoint.
	apply(t, s, 12, 1, frame(120, []segment.Record{catalog.PackedRecord(catalog.Pack{Level: 1, First: 6, Last: 8, Sum: 3}, nil)}))
	c, store, got := s.Checkpoint(), object.NewMemory(), catalog.New()
	if err := c.Save(t.Context(), store, 1); err != nil {
		t.Fatal(err)
	}
	if err := got.Load(t.Context(), store, 1, len(c.Shards)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Shapes(), s.Shapes()) || !reflect.DeepEqual(got.Packs(), s.Packs()) ||
		!reflect.DeepEqual(plan(t, got, old, shape.At(55, 0)), plan(t, s, old, shape.At(55, 0))) {
		t.Errorf("came back as %+v", got.Shapes())
	}
}

// TestEarly applies random histories early, settles some of it and rolls the rest back, and compares with a state that
// saw only what was settled.
func TestEarly(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, settled := grown(t), grown(t)
		type step struct {
			m segment.Meta
			f []segment.Frame
		}
		var history []step
		lsn := pg.LSN(100)
		for seq := uint64(10); seq < 20; seq++ {
			st := step{m: segment.Meta{Seq: seq, Epoch: 1}}
			for range 1 + r.IntN(3) {
				visible := lsn
				if lsn += 10; r.IntN(3) > 0 {
					visible = lsn // else the transaction goes on in the next frame
				}
				var entries []entry
				for _, id := range []shape.ID{5, 6} {
					if r.IntN(2) == 0 {
						entries = append(entries, entry{id, shape.At(lsn, 0), segment.Ref(r.IntN(2)) * segment.RefChunkEnd})
					}
				}
				st.f = append(st.f, frame(visible, nil, entries...))
			}
			history = append(history, st)
		}
		keep := r.IntN(len(history) + 1)
		for i, st := range history {
			for j := range st.f { // one by one, as a feed brings them
				if _, err := s.ApplyEarly(st.m, st.f[j:j+1]); err != nil {
					t.Fatal(err)
				}
			}
			if i < keep {
				if _, err := settled.Apply(st.m, st.f); err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					s.Settle(st.m.Seq)
				}
			}
		}
		s.Settle(uint64(9 + keep))
		before := plan(t, s, info(5).Handle(), shape.SnapshotEnd)
		kept := slices.Clone(before.Extents)
		s.Rollback()
		same := func(when string) {
			t.Helper()
			for _, id := range []shape.ID{5, 6} {
				got, want := plan(t, s, shape.Handle{Shape: id}, shape.SnapshotEnd), plan(t, settled, shape.Handle{Shape: id}, shape.SnapshotEnd)
				if got.Last != want.Last || got.End != want.End || got.Visible != want.Visible || !slices.Equal(got.Extents, want.Extents) {
					t.Fatalf("seed %d, %s: shape %s is\n%+v, want\n%+v", seed, when, id, got, want)
				}
			}
		}
		same("rolled back")
		// The replay comes the normal way.
		for _, st := range history[keep:] {
			for _, x := range []*catalog.State{s, settled} {
				if _, err := x.Apply(st.m, st.f); err != nil {
					t.Fatal(err)
				}
			}
		}
		same("replayed")
		if !slices.Equal(kept, before.Extents) {
			t.Fatalf("seed %d: a plan changed after it was made", seed)
		}
	}
}

func TestEarlyWithRecords(t *testing.T) {
	s := grown(t)
	f := frame(100, []segment.Record{catalog.DroppedRecord(5, nil)})
	if _, err := s.ApplyEarly(segment.Meta{Seq: 10, Epoch: 1}, []segment.Frame{f}); !errors.Is(err, catalog.ErrRecords) {
		t.Errorf("records: %v", err)
	}
	if _, err := s.ApplyEarly(segment.Meta{Seq: 10, Epoch: 2}, []segment.Frame{frame(100, nil)}); err == nil {
		t.Error("another epoch was applied early")
	}
	if _, err := s.ApplyEarly(segment.Meta{Seq: 10, Epoch: 1}, []segment.Frame{frame(100, nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(segment.Meta{Seq: 10, Epoch: 1}, []segment.Frame{f}); err == nil {
		t.Error("a segment was applied over unsettled frames")
	}
	s.Settle(10)
	if _, err := s.Apply(segment.Meta{Seq: 11, Epoch: 1}, []segment.Frame{f}); err != nil {
		t.Error(err)
	}
}
