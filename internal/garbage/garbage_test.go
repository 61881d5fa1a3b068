package garbage_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/audit"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/garbage"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

func info(id shape.ID, table string) *catalog.Info {
	return &catalog.Info{
		ID: id, Definition: shape.Definition{Table: shape.Table{Schema: "public", Name: table}}.Canonical(), Canonical: id.String(),
		Relation: &pg.Relation{OID: 7, Schema: "public", Name: table, Columns: []pg.Column{{Name: "id", PK: 1}}},
		Columns:  []int{0}, Schema: json.RawMessage(`{"id":{"type":"int4"}}`), Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}
}

// TestCollect lets a bucket live for a simulated day: a shape stays, one is dropped, one gets a new base and is
// trimmed, a pack supersedes segments, and attempts of all kinds fail. What is found is exactly what is not referred to.
func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), object.NewMemory()
		put := func(key string, b []byte) {
			t.Helper()
			if _, err := store.Put(ctx, key, b, object.Always()); err != nil {
				t.Fatal(err)
			}
		}
		page := segment.AppendPage(nil, segment.Page{Last: true, Body: []byte("[]")})
		state := catalog.New()
		w, err := shapelog.OpenWriter(ctx, store, recovery{state}, shapelog.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var b segment.Builder
		flush := func(lsn pg.LSN, records ...segment.Record) (uint64, []byte) {
			t.Helper()
			f := segment.Frame{Visible: lsn, End: lsn + 1, Records: records, Messages: []segment.Message{
				{Offset: shape.At(lsn, 0), Body: []byte(`{"key":"1","headers":{"operation":"insert"`)}}}
			for _, id := range []shape.ID{1, 2, 3} {
				f.Postings = append(f.Postings, segment.Posting{Shape: id, Refs: []segment.Ref{segment.NewRef(0, 0)}})
			}
			b.Add(&f)
			seq, err := w.Append(ctx, &b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := state.Apply(segment.Meta{Seq: seq, Epoch: w.Epoch()}, []segment.Frame{f}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			o, err := store.Get(ctx, shapelog.SegmentKey(seq), object.Range{})
			if err != nil {
				t.Fatal(err)
			}
			return seq, o.Body
		}
		checkpoint := func(generation uint64) {
			t.Helper()
			c := state.Checkpoint()
			if err := c.Save(ctx, store, generation); err != nil {
				t.Fatal(err)
			}
			if err := w.Checkpoint(ctx, shapelog.Checkpoint{Generation: generation, Seq: c.Seq, Shards: len(c.Shards)}); err != nil {
				t.Fatal(err)
			}
			if err := w.Retire(ctx, min(state.Floor(), c.Seq+1)); err != nil {
				t.Fatal(err)
			}
		}

		for id, table := range map[shape.ID]string{1: "stays", 2: "dropped", 3: "rebased"} {
			i := info(id, table)
			put(i.Handle().PageKey(0), page)
			if err := catalog.PutPointer(ctx, store, i.Definition, i.Handle()); err != nil {
				t.Fatal(err)
			}
		}
		one := &catalog.Base{Pages: 1}
		first, _ := flush(10, catalog.OpenedRecord(info(1, "stays"), one), catalog.OpenedRecord(info(2, "dropped"), one),
			catalog.OpenedRecord(info(3, "rebased"), one))
		checkpoint(1)
		_, body := flush(20)
		flush(30, catalog.DroppedRecord(2, nil))
		newest := shape.Handle{Shape: 3, Base: 99}
		put(newest.PageKey(0), page)
		flush(40, catalog.RebasedRecord(3, catalog.Rebase{Gen: 99, At: shape.At(20, 0), Base: *one}))
		flush(50, catalog.TrimmedRecord(3, shape.At(20, 0)))

		// A pack of everything so far; as in a real one, the bytes are those of a segment.
		var all segment.Builder
		for lsn := pg.LSN(10); lsn <= 50; lsn += 10 {
			f := segment.Frame{Visible: lsn, End: lsn + 1, Messages: []segment.Message{{Offset: shape.At(lsn, 0), Body: []byte(`{`)}},
				Postings: []segment.Posting{{Shape: 1, Refs: []segment.Ref{0}}, {Shape: 3, Refs: []segment.Ref{0}}}}
			all.Add(&f)
		}
		last := first + 4
		packed, meta := all.Seal(segment.Meta{Seq: last, Epoch: w.Epoch()})
		pack := catalog.Pack{Level: 1, First: first, Last: last, Sum: meta.Sum, Size: int64(len(packed))}
		put(pack.Key(), packed)
		flush(60, catalog.PackedRecord(pack, nil))
		checkpoint(2)
		flush(70)

		failed := catalog.Pack{Level: 1, First: 1, Last: 2, Sum: 7}
		put(failed.Key(), body)
		put("catalog/00000000000000ff/00", []byte("a checkpoint that was never adopted"))
		put(shape.Handle{Shape: 77}.PageKey(0), page)
		put(shape.Handle{Shape: 1, Base: 5}.PageKey(0), page)
		put("selftest/x", []byte("x"))
		put("somebody/else", []byte("not ours"))
		d := info(9, "asked").Definition
		if err := catalog.PutRequest(ctx, store, catalog.Request{Open: &d}); err != nil {
			t.Fatal(err)
		}

		want := []string{
			"catalog/0000000000000001/00", "catalog/00000000000000ff/00", catalog.DefinitionsPrefix + info(2, "dropped").Definition.Hash(),
			failed.Key(), "requests/" + d.Hash(), "selftest/x", shape.Handle{Shape: 1, Base: 5}.PageKey(0),
			shape.Handle{Shape: 2}.PageKey(0), shape.Handle{Shape: 3}.PageKey(0), shape.Handle{Shape: 77}.PageKey(0),
		}
		for seq := uint64(1); seq <= last; seq++ {
			want = append(want, shapelog.SegmentKey(seq))
		}
		slices.Sort(want)

		find := func() []string {
			t.Helper()
			durable, err := garbage.Fold(ctx, store)
			if err != nil {
				t.Fatal(err)
			}
			now, err := garbage.Clock(ctx, store)
			if err != nil {
				t.Fatal(err)
			}
			items, err := garbage.Find(ctx, store, durable, now.Add(-24*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, i := range items {
				keys = append(keys, i.Key)
			}
			if err := garbage.Delete(ctx, store, items, nil); err != nil {
				t.Fatal(err)
			}
			slices.Sort(keys)
			return keys
		}
		if got := find(); len(got) != 0 {
			t.Errorf("what is young was deleted: %q", got)
		}
		time.Sleep(25 * time.Hour) // nothing else runs
		young := catalog.Pack{Level: 1, First: 1, Last: 2, Sum: 8}
		put(young.Key(), body)
		if got := find(); !slices.Equal(got, want) {
			t.Errorf("deleted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got := find(); len(got) != 0 {
			t.Errorf("left over: %q", got)
		}
		if err := w.Close(ctx); err != nil {
			t.Fatal(err)
		}
		// What is left is sound; the check only knows the pack that waits for its record, and the file of somebody else.
		r, err := audit.Check(ctx, store, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Problems {
			if p.Key != young.Key() && p.Key != "somebody/else" {
				t.Errorf("%s: %s", p.Key, p.What)
			}
		}
	})
}

// recovery starts a log that is new.
type recovery struct{ *catalog.State }

func (r recovery) Load(_ context.Context, c shapelog.Checkpoint) error {
	if c.Generation != 0 {
		return errors.New("the log is not new")
	}
	return nil
}

func (r recovery) Apply(s *segment.Segment) error {
	_, err := r.State.Apply(s.Meta, s.Frames)
	return err
}
