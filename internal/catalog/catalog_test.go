package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

func info(id shape.ID) *catalog.Info {
	return &catalog.Info{
		ID: id, Definition: shape.Definition{Table: shape.Table{Schema: "public", Name: "t"}}.Canonical(), Canonical: id.String(),
		Relation: &pg.Relation{OID: 7, Schema: "public", Name: "t", Columns: []pg.Column{{Name: "id", PK: 1}}},
		Columns:  []int{0}, Schema: json.RawMessage(`{"id":{"type":"int4"}}`), Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}
}

// entry is a posting of one message to one shape.
type entry struct {
	id    shape.ID
	at    shape.Offset
	marks segment.Ref
}

func frame(visible pg.LSN, records []segment.Record, entries ...entry) segment.Frame {
	f := segment.Frame{Visible: visible, End: visible + 8, Records: records}
	for _, e := range entries {
		f.Messages = append(f.Messages, segment.Message{Offset: e.at, Body: []byte("0123456789")})
		ref := segment.NewRef(len(f.Messages)-1, e.marks)
		i := slices.IndexFunc(f.Postings, func(p segment.Posting) bool { return p.Shape == e.id })
		if i < 0 {
			i = len(f.Postings)
			f.Postings = append(f.Postings, segment.Posting{Shape: e.id})
		}
		f.Postings[i].Refs = append(f.Postings[i].Refs, ref)
	}
	return f
}

func apply(t *testing.T, s *catalog.State, seq, epoch uint64, frames ...segment.Frame) catalog.Delta {
	t.Helper()
	d, err := s.Apply(segment.Meta{Seq: seq, Epoch: epoch}, frames)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func extents(t *testing.T, s *catalog.State, id shape.ID, after shape.Offset) []catalog.Extent {
	t.Helper()
	p, ok := s.Plan(shape.Handle{Shape: id}, after)
	if !ok {
		t.Fatalf("no shape %s", id)
	}
	return p.Extents
}

func TestLifeOfAShape(t *testing.T) {
	s := catalog.New()
	d := apply(t, s, 1, 1, frame(10, []segment.Record{catalog.OpenedRecord(info(5), nil)}))
	if !slices.Equal(d.Opened, []shape.ID{5}) || d.Ready != nil {
		t.Errorf("delta %+v", d)
	}
	p, _ := s.Plan(shape.Handle{Shape: 5}, shape.Before)
	if p.Base != nil || p.Last != shape.SnapshotEnd || p.End != shape.SnapshotEnd || p.Visible != 10 || p.Info.Definition.Table.Name != "t" {
		t.Errorf("plan %+v", p)
	}
	d = apply(t, s, 2, 1, frame(20, []segment.Record{catalog.ReadyRecord(5, catalog.Base{Pages: 2, Rows: 9})}, entry{5, shape.At(20, 0), 0}))
	if !slices.Equal(d.Ready, []shape.ID{5}) || !slices.Equal(d.Grown, []shape.ID{5}) {
		t.Errorf("delta %+v", d)
	}
	if p, _ := s.Plan(shape.Handle{Shape: 5}, shape.SnapshotEnd); p.Base.Pages != 2 || p.Last != shape.At(20, 0) {
		t.Errorf("plan %+v", p)
	}
	why := shape.Unavailable(3, "no")
	d = apply(t, s, 3, 1, frame(30, []segment.Record{catalog.DroppedRecord(5, why)}, entry{5, shape.At(30, 0), 0}))
	if len(d.Dropped) != 1 || d.Dropped[0].Info.ID != 5 || d.Dropped[0].Reason.Message != why.Message {
		t.Errorf("delta %+v", d)
	}
	if _, ok := s.Plan(shape.Handle{Shape: 5}, shape.Before); ok {
		t.Error("the shape is still there")
	}
}

func TestPlanStopsAtChunks(t *testing.T) {
	s := catalog.New()
	apply(t, s, 1, 1, frame(10, []segment.Record{catalog.OpenedRecord(info(5), nil)}, entry{5, shape.At(10, 0), 0}))
	apply(t, s, 2, 1, frame(20, nil, entry{5, shape.At(20, 0), segment.RefChunkEnd}, entry{5, shape.At(20, 2), 0}))
	apply(t, s, 3, 1, frame(30, nil, entry{5, shape.At(30, 0), 0}))
	for _, c := range []struct {
		after, end shape.Offset
		closed     bool
		segments   []uint64
	}{
		{shape.SnapshotEnd, shape.At(20, 0), true, []uint64{1, 2}},
		{shape.Page(3), shape.At(20, 0), true, []uint64{1, 2}},
		{shape.At(10, 0), shape.At(20, 0), true, []uint64{2}},
		{shape.At(19, 7), shape.At(20, 0), true, []uint64{2}},
		{shape.At(20, 0), shape.At(30, 0), false, []uint64{2, 3}},
		{shape.At(20, 2), shape.At(30, 0), false, []uint64{3}},
		{shape.At(30, 0), shape.At(30, 0), false, nil},
		{shape.At(99, 0), shape.At(30, 0), false, nil},
	} {
		p, _ := s.Plan(shape.Handle{Shape: 5}, c.after)
		var segs []uint64
		for _, e := range p.Extents {
			segs = append(segs, e.Seq)
		}
		if p.End != c.end || p.Closed != c.closed || !slices.Equal(segs, c.segments) {
			t.Errorf("after %v: end %v closed %v segments %v", c.after, p.End, p.Closed, segs)
		}
	}
}

// TestCutTransaction: entries of a transaction that a crash cut are never shown, and those that come again are.
func TestCutTransaction(t *testing.T) {
	s := catalog.New()
	opened := []segment.Record{catalog.OpenedRecord(info(5), nil)}
	d := apply(t, s, 1, 1, frame(10, opened, entry{5, shape.At(10, 0), 0}, entry{5, shape.At(20, 0), 0}, entry{5, shape.At(20, 2), 0}))
	if p, _ := s.Plan(shape.Handle{Shape: 5}, shape.SnapshotEnd); p.Last != shape.At(10, 0) || !slices.Equal(d.Grown, []shape.ID{5}) {
		t.Errorf("last %v, delta %+v", p.Last, d)
	}
	apply(t, s, 2, 2) // another writer
	apply(t, s, 3, 2, frame(10, nil, entry{5, shape.At(20, 0), 0}))
	if d := apply(t, s, 4, 2, frame(20, nil, entry{5, shape.At(20, 2), segment.RefLast})); !slices.Equal(d.Grown, []shape.ID{5}) {
		t.Errorf("delta %+v", d)
	}
	want := []catalog.Extent{
		{Seq: 1, First: shape.At(10, 0), Last: shape.At(10, 0), Bytes: 10},
		{Seq: 3, First: shape.At(20, 0), Last: shape.At(20, 0), Bytes: 10},
		{Seq: 4, First: shape.At(20, 2), Last: shape.At(20, 2), Bytes: 10},
	}
	if got := extents(t, s, 5, shape.SnapshotEnd); !reflect.DeepEqual(got, want) {
		t.Errorf("extents %+v", got)
	}
	// The same transaction once more, as after a replay: nothing of it is new (R3).
	if d := apply(t, s, 5, 2, frame(20, nil, entry{5, shape.At(20, 0), 0}, entry{5, shape.At(20, 2), 0})); d.Grown != nil {
		t.Errorf("delta %+v", d)
	}
}

// TestPlansAreFrozen: what a plan shares with the state is not written to again.
func TestPlansAreFrozen(t *testing.T) {
	s := catalog.New()
	apply(t, s, 1, 1, frame(10, []segment.Record{catalog.OpenedRecord(info(5), nil)}, entry{5, shape.At(10, 0), 0}, entry{5, shape.At(20, 0), 0}))
	got := extents(t, s, 5, shape.SnapshotEnd)
	before := slices.Clone(got)
	apply(t, s, 2, 1, frame(20, nil, entry{5, shape.At(20, 2), 0})) // releases the entry of segment 1
	if !reflect.DeepEqual(got, before) {
		t.Errorf("extents %+v became %+v", before, got)
	}
	if n := len(extents(t, s, 5, shape.SnapshotEnd)); n != 3 {
		t.Errorf("%d extents", n)
	}
}

func TestSourceDropsEverything(t *testing.T) {
	s := catalog.New()
	apply(t, s, 1, 1, frame(100, []segment.Record{catalog.OpenedRecord(info(5), nil), catalog.OpenedRecord(info(6), nil)}))
	src := catalog.Source{System: "1", Database: "d", Slot: "s", Made: "m"}
	d := apply(t, s, 2, 1, frame(3, []segment.Record{catalog.SourceRecord(src)}))
	if _, _, visible, end := s.Position(); len(d.Dropped) != 2 || s.Source() != src || visible != 3 || end != 11 {
		t.Errorf("dropped %d, source %+v, visible %v, end %v", len(d.Dropped), s.Source(), visible, end)
	}
}

func TestUnknownRecordIsAnError(t *testing.T) {
	_, err := catalog.New().Apply(segment.Meta{Seq: 1}, []segment.Frame{{Records: []segment.Record{{Kind: 99}}}})
	if !errors.Is(err, segment.ErrVersion) {
		t.Errorf("got %v", err)
	}
}

// filled is a state with something of everything, in one shard or in many.
func filled(t *testing.T, shapes int) *catalog.State {
	s := catalog.New()
	records := []segment.Record{catalog.SourceRecord(catalog.Source{System: "9"})}
	var entries []entry
	for i := range shapes {
		id := shape.ID(1000 + i)
		records = append(records, catalog.OpenedRecord(info(id), &catalog.Base{Pages: 1}))
		entries = append(entries, entry{id, shape.At(50, 0), segment.RefChunkEnd}, entry{id, shape.At(60, 0), 0}, entry{id, shape.At(70, 0), 0})
	}
	apply(t, s, 8, 3, frame(60, records, entries...))
	return s
}

func TestCheckpoint(t *testing.T) {
	ctx := context.Background()
	for _, shapes := range []int{0, 3, 1500} {
		s, store := filled(t, shapes), object.NewMemory()
		c := s.Checkpoint()
		if err := c.Save(ctx, store, 4); err != nil {
			t.Fatal(err)
		}
		got := catalog.New()
		if err := got.Load(ctx, store, 4, len(c.Shards)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Shapes(), s.Shapes()) || len(got.Shapes()) != shapes {
			t.Fatalf("%d shapes came back as %d", shapes, len(got.Shapes()))
		}
		// The pending entries are in it: both states show them at the same commit.
		for _, st := range []*catalog.State{s, got} {
			if d := apply(t, st, 9, 3, frame(70, nil)); len(d.Grown) != shapes {
				t.Errorf("%d of %d shapes grew", len(d.Grown), shapes)
			}
		}
		if shapes > 0 && !reflect.DeepEqual(extents(t, s, 1000, shape.SnapshotEnd), extents(t, got, 1000, shape.SnapshotEnd)) {
			t.Error("extents differ")
		}
		if err := catalog.Remove(ctx, store, 4); err != nil {
			t.Fatal(err)
		}
		if err := catalog.New().Load(ctx, store, 4, len(c.Shards)); !errors.Is(err, object.ErrNotFound) {
			t.Errorf("loaded what was removed: %v", err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	s := catalog.New()
	_, _ = s.Apply(segment.Meta{Seq: 1, Epoch: 1}, []segment.Frame{frame(10, []segment.Record{catalog.OpenedRecord(info(5), nil)},
		entry{5, shape.At(10, 0), segment.RefChunkEnd}, entry{5, shape.At(20, 0), 0})})
	whole := s.Checkpoint().Shards[0]
	f.Add(whole[8 : len(whole)-4])
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, body []byte) {
		store := object.NewMemory()
		if _, err := store.Put(t.Context(), catalog.ShardKey(1, 0), catalog.Recheck(body), object.Always()); err != nil {
			t.Fatal(err)
		}
		got := catalog.New()
		if err := got.Load(t.Context(), store, 1, 1); err != nil {
			return
		}
		if err := got.Checkpoint().Save(t.Context(), store, 2); err != nil {
			t.Fatal(err)
		}
		again := catalog.New()
		if err := again.Load(t.Context(), store, 2, len(got.Checkpoint().Shards)); err != nil ||
			!reflect.DeepEqual(got.Checkpoint(), again.Checkpoint()) {
			t.Errorf("saved again: %v", err)
		}
	})
}

func TestExchange(t *testing.T) {
	ctx, store := t.Context(), object.NewMemory()
	d := info(5).Definition
	if _, err := catalog.GetPointer(ctx, store, d); !errors.Is(err, object.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	for _, h := range []shape.Handle{{Shape: 1}, {Shape: 1}, {Shape: 2}} {
		if err := catalog.PutPointer(ctx, store, d, h); err != nil {
			t.Fatal(err)
		}
		if got, err := catalog.GetPointer(ctx, store, d); err != nil || got != h {
			t.Errorf("got %v, %v, want %v", got, err, h)
		}
	}
	r := catalog.Request{Open: &d}
	for range 2 {
		if err := catalog.PutRequest(ctx, store, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Refuse(ctx, store, shape.Invalid("where", "no")); err != nil {
		t.Fatal(err)
	}
	got, err := catalog.GetRequest(ctx, store, r.Key())
	if err != nil || got.Answer == nil || got.Answer.Error() != "where: no" || got.Open.Hash() != d.Hash() {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := store.Put(ctx, "requests/x", []byte(`{}`), object.Always()); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.GetRequest(ctx, store, "requests/x"); err == nil {
		t.Error("a request for nothing was read as one")
	}
}
