package ingest

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// manyShapes is a checkpoint of n shapes of one template, in a store.
func manyShapes(tb testing.TB, n int) (object.Store, catalog.Checkpoint) {
	tb.Helper()
	rel := *testTable
	f := segment.Frame{Visible: 10, End: 11}
	state := catalog.New()
	for i := range n {
		d := shape.Definition{Table: shape.Table{Schema: "public", Name: "t"}, Where: fmt.Sprintf("id = %d", i)}.Canonical()
		f.Records = append(f.Records, catalog.OpenedRecord(&catalog.Info{
			ID: shape.ID(i + 1), Definition: d, Canonical: d.Where, Relation: &rel, Columns: []int{0, 1},
			Schema: json.RawMessage(`{"id":{"type":"int4","not_null":true,"pk_index":0},"v":{"type":"text"}}`), Snapshot: pg.Snapshot{Xmin: 800, Xmax: 800},
		}, &catalog.Base{Pages: 1, Rows: 1, Bytes: 100}))
	}
	if _, err := state.Apply(segment.Meta{Seq: 1, Epoch: 1}, []segment.Frame{f}); err != nil {
		tb.Fatal(err)
	}
	store, c := object.NewMemory(), state.Checkpoint()
	if err := c.Save(tb.Context(), store, 1); err != nil {
		tb.Fatal(err)
	}
	return store, c
}

// takenUp loads the checkpoint and takes the shapes up, as a term does when it begins.
func takenUp(tb testing.TB, store object.Store, c catalog.Checkpoint) *engine {
	tb.Helper()
	e := &engine{s: New(Config{Store: store}), state: catalog.New(), byIdent: make(map[string]*member)}
	e.tables = make(map[pg.OID]*table)
	if err := e.state.Load(tb.Context(), store, 1, len(c.Shards)); err != nil {
		tb.Fatal(err)
	}
	if err := e.adopt(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return e
}

// TestTakeUp: shapes come back with their conditions, and share what they can: relations above all.
func TestTakeUp(t *testing.T) {
	const n = 2000
	store, c := manyShapes(t, n)
	e := takenUp(t, store, c)
	if len(e.byIdent) != n || len(e.tables) != 1 || len(e.frame.records) != 0 {
		t.Fatalf("%d shapes, %d tables, %d records", len(e.byIdent), len(e.tables), len(e.frame.records))
	}
	relations := make(map[*pg.Relation]bool)
	for _, m := range e.byIdent {
		relations[m.info.Relation] = true
	}
	if len(relations) != 1 {
		t.Errorf("%d copies of one relation", len(relations))
	}
	hits := e.tables[testTable.OID].index.Match(&pg.Change{Op: pg.Insert, Relation: testTable, New: pg.Row{[]byte("7"), []byte("x")}}, nil)
	if len(hits) != 1 {
		t.Errorf("%d shapes have row 7", len(hits))
	}
}

func BenchmarkTakeUp(b *testing.B) {
	where.Warm()
	const n = 100_000
	store, c := manyShapes(b, n)
	b.ReportAllocs()
	var kept *engine
	for b.Loop() {
		kept = nil
		kept = takenUp(b, store, c)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/n, "heap-B/shape")
	runtime.KeepAlive(kept)
}
