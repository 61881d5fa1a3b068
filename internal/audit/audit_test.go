package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/audit"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// fold is a Recovery that keeps the state.
type fold struct {
	*catalog.State
	store object.Reader
}

func (f fold) Load(ctx context.Context, c shapelog.Checkpoint) error {
	return f.State.Load(ctx, f.store, c.Generation, c.Shards)
}

func (f fold) Apply(s *segment.Segment) error {
	_, err := f.State.Apply(s.Meta, s.Frames)
	return err
}

// bucket returns a sound bucket with one shape of two pages, a checkpoint, and segments before and behind it.
func bucket(t *testing.T) object.Store {
	t.Helper()
	ctx, store := t.Context(), object.NewMemory()
	put := func(key string, b []byte) {
		t.Helper()
		if _, err := store.Put(ctx, key, b, object.Always()); err != nil {
			t.Fatal(err)
		}
	}
	f := fold{catalog.New(), store}
	w, err := shapelog.OpenWriter(ctx, store, f, shapelog.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := shape.Definition{Table: shape.Table{Schema: "public", Name: "t"}}.Canonical()
	info := &catalog.Info{
		ID: 5, Definition: d, Canonical: "5",
		Relation: &pg.Relation{OID: 7, Schema: "public", Name: "t", Columns: []pg.Column{{Name: "id", PK: 1}}},
		Columns:  []int{0}, Schema: json.RawMessage(`{"id":{"type":"int4"}}`), Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}
	for n, last := range []bool{false, true} {
		put(info.Handle().PageKey(uint32(n)), segment.AppendPage(nil, segment.Page{Last: last, Rows: 1, Body: []byte(`[{"key":"1"}]`)}))
	}
	var b segment.Builder
	flush := func(f fold, lsn pg.LSN, records ...segment.Record) {
		t.Helper()
		frame := segment.Frame{
			Visible: lsn, End: lsn + 1, Records: records,
			Messages: []segment.Message{{Offset: shape.At(lsn, 0), Body: []byte(`{"key":"1","headers":{"operation":"insert"`)}},
			Postings: []segment.Posting{{Shape: 5, Refs: []segment.Ref{segment.NewRef(0, segment.RefLast)}}},
		}
		b.Add(&frame)
		seq, err := w.Append(ctx, &b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.State.Apply(segment.Meta{Seq: seq, Epoch: w.Epoch()}, []segment.Frame{frame}); err != nil {
			t.Fatal(err)
		}
	}
	flush(f, 10, catalog.OpenedRecord(info, &catalog.Base{Pages: 2, Rows: 2}))
	flush(f, 20)
	c := f.Checkpoint()
	if err := c.Save(ctx, store, 1<<32); err != nil {
		t.Fatal(err)
	}
	for w.Checkpoint(ctx, shapelog.Checkpoint{Generation: 1 << 32, Seq: c.Seq, Shards: len(c.Shards)}) != nil {
		if t.Context().Err() != nil {
			t.Fatal("no checkpoint")
		}
	}
	flush(f, 30)
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := catalog.PutPointer(ctx, store, d, info.Handle()); err != nil {
		t.Fatal(err)
	}
	if err := catalog.PutRequest(ctx, store, catalog.Request{Open: &d}); err != nil {
		t.Fatal(err)
	}
	return store
}

func check(t *testing.T, store object.Store) *audit.Result {
	t.Helper()
	done := 0
	r, err := audit.Check(t.Context(), store, func(n, _ int) { done = n })
	if err != nil {
		t.Fatal(err)
	}
	all, err := store.List(t.Context(), "", "", 0)
	if err != nil || done != len(all) {
		t.Errorf("%d of %d objects looked at, %v", done, len(all), err)
	}
	return r
}

func TestSound(t *testing.T) {
	store := bucket(t)
	r := check(t, store)
	if len(r.Problems) != 0 || r.Shapes != 1 || r.Kinds[audit.KindPage].Objects != 2 || r.Kinds[audit.KindDefinition].Objects != 1 {
		t.Errorf("%+v", r)
	}
	if r := check(t, object.NewMemory()); len(r.Problems) != 0 {
		t.Errorf("an empty bucket: %+v", r)
	}
}

// TestEveryBit flips bits in every object: the check names the object each time.
func TestEveryBit(t *testing.T) {
	store := bucket(t)
	all, err := store.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, info := range all {
		o, err := store.Get(t.Context(), info.Key, object.Range{})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			bit := r.IntN(8 * len(o.Body))
			damaged := bytes.Clone(o.Body)
			damaged[bit/8] ^= 1 << (bit % 8)
			if _, err := store.Put(t.Context(), info.Key, damaged, object.Always()); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, p := range check(t, store).Problems {
				found = found || p.Key == info.Key
			}
			if !found {
				t.Errorf("%s: bit %d was flipped unnoticed", info.Key, bit)
			}
		}
		if _, err := store.Put(t.Context(), info.Key, o.Body, object.Always()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissing removes each object in turn: the check names those that something refers to.
func TestMissing(t *testing.T) {
	store := bucket(t)
	all, err := store.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[audit.Kind]int)
	for _, info := range all {
		o, err := store.Get(t.Context(), info.Key, object.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
		for _, p := range check(t, store).Problems {
			if p.Key == info.Key {
				named[audit.KindOf(info.Key)]++
			}
		}
		if _, err := store.Put(t.Context(), info.Key, o.Body, object.Always()); err != nil {
			t.Fatal(err)
		}
	}
	// Fences before the checkpoint and the last segment are missed by nobody; all else is.
	if named[audit.KindPage] != 2 || named[audit.KindCheckpoint] != 1 || named[audit.KindSegment] < 2 {
		t.Errorf("named %v", named)
	}
}

func TestStrangeKeys(t *testing.T) {
	store := bucket(t)
	for _, key := range []string{"log/x", "notes.txt", "shapes/5/base/0/0", "catalog/1/1", "pack/"} {
		if object.ValidKey(key) != nil {
			continue
		}
		if _, err := store.Put(t.Context(), key, []byte("x"), object.Always()); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, p := range check(t, store).Problems {
			found = found || p.Key == key
		}
		if !found {
			t.Errorf("%s is taken for one of ours", key)
		}
	}
}

func TestDescribe(t *testing.T) {
	store := bucket(t)
	all, err := store.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, info := range all {
		o, err := store.Get(t.Context(), info.Key, object.Range{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := audit.Describe(info.Key, o.Body)
		if err != nil {
			t.Errorf("%s: %v", info.Key, err)
		}
		if err := d.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Errorf("%s: %v", info.Key, err)
		}
		for n := range min(len(o.Body), 200) { // damaged bytes are described, or refused, but never a panic
			_, _ = audit.Describe(info.Key, o.Body[:n])
		}
	}
	for _, want := range []string{"record opened shape 0000000000000005", "(last)", "visible 0/1E", "base 0: 2 pages", "entries 10_0"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}
