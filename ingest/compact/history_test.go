package compact_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
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
	"github.com/shapeline/shapeline/serve/body"
)

const (
	clientsPerHistory = 500
	clientsDefault    = 3000 // SHAPELINE_SIM_CLIENTS says otherwise
)

var historyRelation = &pg.Relation{OID: 7, Schema: "public", Name: "t",
	Columns: []pg.Column{{Name: "id", PK: 1}, {Name: "a"}, {Name: "b"}, {Name: "c"}}}

// history is a table, the log of one shape of it, and what packs and new bases make of that.
type history struct {
	*rig
	rnd   *rand.Rand
	proj  *shape.Projection
	rows  map[string]pg.Row
	lsn   pg.LSN
	times int // values made so far
	c     *compact.Compactor
}

const historyShape = shape.ID(1)

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{rig: newRig(t, object.NewMemory()), rnd: rand.New(rand.NewPCG(seed, 11)), rows: make(map[string]pg.Row), lsn: 100}
	replica := []shape.Replica{shape.ReplicaDefault, shape.ReplicaFull}[h.rnd.IntN(2)]
	h.proj = shape.NewProjection(historyRelation, []int{0, 1, 2, 3}, replica)
	page := []byte("[")
	for i := range h.rnd.IntN(20) {
		row := h.row(strconv.Itoa(i))
		h.rows[strconv.Itoa(i)] = row
		page = append(h.proj.AppendRow(page, row), ',')
	}
	page = append(shape.AppendSnapshotEnd(page, pg.Snapshot{Xmin: 3, Xmax: 3}), ']')
	base := &catalog.Base{Pages: 1, Rows: uint64(len(h.rows)), Bytes: uint64(len(page))}
	stored := segment.AppendPage(nil, segment.Page{Last: true, Rows: uint32(len(h.rows)), Body: page})
	if _, err := h.store.Put(t.Context(), shape.Handle{Shape: historyShape}.PageKey(0), stored, object.Always()); err != nil {
		t.Fatal(err)
	}
	h.flush(segment.Frame{Visible: 5, End: 6, Records: []segment.Record{catalog.OpenedRecord(&catalog.Info{
		ID: historyShape, Definition: shape.Definition{Replica: replica}.Canonical(), Canonical: "t", Relation: historyRelation,
		Columns: []int{0, 1, 2, 3}, Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}, base)}})
	h.compactor()
	return h
}

func (h *history) compactor() {
	h.c = compact.New(compact.Config{
		Store: h.store, State: h.state, Log: h.rig, Writer: h.w, Epoch: h.w.Epoch(), Logger: slog.New(slog.DiscardHandler),
		PageBytes: 500 + h.rnd.IntN(2000), History: 2000, Retention: time.Hour,
	})
}

func (h *history) value() []byte {
	h.times++
	if h.rnd.IntN(10) == 0 {
		return nil
	}
	return fmt.Appendf(nil, `v%d "\ `, h.times)
}

func (h *history) row(id string) pg.Row { return pg.Row{[]byte(id), h.value(), h.value(), h.value()} }

// transaction changes some rows, most often the same few, and stores what the pipeline would.
func (h *history) transaction() {
	f := segment.Frame{}
	h.lsn += 10
	post := segment.Posting{Shape: historyShape}
	message := func(op int, render func(dst []byte, at shape.Place) []byte) {
		at := shape.Place{XID: pg.XID(h.lsn), LSN: h.lsn, Op: uint64(op)}
		f.Messages = append(f.Messages, segment.Message{Offset: at.Offset(), Body: render(nil, at)})
		marks := segment.Ref(0)
		if h.rnd.IntN(25) == 0 {
			marks = segment.RefChunkEnd
		}
		post.Refs = append(post.Refs, segment.NewRef(len(f.Messages)-1, marks))
	}
	for op := range 1 + h.rnd.IntN(5) {
		id := strconv.Itoa(h.rnd.IntN(1 + h.rnd.IntN(20)))
		old := h.rows[id]
		switch {
		case old == nil:
			h.rows[id] = h.row(id)
			message(2*op, func(dst []byte, at shape.Place) []byte { return h.proj.AppendInsert(dst, at, h.rows[id], nil) })
		case h.rnd.IntN(10) == 0:
			delete(h.rows, id)
			message(2*op, func(dst []byte, at shape.Place) []byte { return h.proj.AppendDelete(dst, at, old, nil) })
		case h.rnd.IntN(15) == 0: // another key
			h.times++
			to := strconv.Itoa(100 + h.times)
			row := slices.Clone(old)
			row[0] = []byte(to)
			delete(h.rows, id)
			h.rows[to] = row
			message(2*op, func(dst []byte, at shape.Place) []byte { return h.proj.AppendDelete(dst, at, old, row) })
			message(2*op+1, func(dst []byte, at shape.Place) []byte { return h.proj.AppendInsert(dst, at, row, old) })
		default:
			row := slices.Clone(old)
			row[1+h.rnd.IntN(3)] = h.value()
			h.rows[id] = row
			if h.proj.Changes(old, row) {
				message(2*op, func(dst []byte, at shape.Place) []byte { return h.proj.AppendUpdate(dst, at, old, row) })
			}
		}
	}
	f.Visible, f.End = h.lsn, h.lsn+1
	if len(f.Messages) > 0 {
		f.Postings = []segment.Posting{post}
		h.flush(f)
	}
}

// reader is a client that takes an insert only where there is nothing, and a change only of what is there.
type reader struct {
	handle shape.Handle
	at     shape.Offset
	rows   map[string]map[string]string
	late   int // how often it had to start over
}

func (r *reader) start(newest shape.Handle) {
	r.handle, r.at, r.rows = newest, shape.Before, make(map[string]map[string]string)
}

func (r *reader) take(message []byte) error {
	if string(message[:11]) == `{"headers":` {
		return nil
	}
	var c shape.Change
	if err := c.Read(message); err != nil {
		return err
	}
	row, there := r.rows[string(c.Key)]
	switch {
	case there == (c.Operation == "insert"):
		return fmt.Errorf("%s where there is a row: %v: %s", c.Operation, there, message)
	case c.Operation == "delete":
		delete(r.rows, string(c.Key))
		return nil
	case c.Operation == "insert":
		row = make(map[string]string)
		r.rows[string(c.Key)] = row
	}
	for _, m := range c.Value {
		row[string(m.Name)] = string(m.Value)
	}
	return nil
}

// request asks for what follows once, and reports whether there was nothing.
func (h *history) request(ctx context.Context, src *body.Source, r *reader) (idle bool, err error) {
	p, ok := h.state.Plan(r.handle, r.at)
	if !ok {
		return false, errors.New("no shape")
	}
	if p.Behind {
		r.late++
		r.start(p.Newest)
		return false, nil
	}
	next := uint32(0)
	if r.at.InSnapshot() {
		next = uint32(r.at.Op) + 1
	}
	var data []byte
	switch {
	case r.at.IsBefore() || r.at.InSnapshot() && next < p.Base.Pages:
		data, err = src.Page(ctx, r.handle, next, false)
		r.at = shape.Page(next)
	case p.End.Compare(p.After) <= 0:
		return true, nil
	default:
		data, err = src.Entries(ctx, &p, p.After, false)
		data = append(slices.Clip(data), ']')
		r.at = p.End
	}
	if err != nil {
		return false, err
	}
	return false, shape.Messages(data, r.take)
}

// want is what a reader that has everything holds.
func (h *history) want() map[string]map[string]string {
	all := &reader{}
	all.start(shape.Handle{})
	for _, row := range h.rows {
		if err := all.take(h.proj.AppendRow(nil, row)); err != nil {
			h.t.Fatal(err)
		}
	}
	return all.rows
}

// TestClientsOfHistories lets many clients, strict about duplicates and absences, start and go on at any time of random
// histories, while these are packed, given new bases, trimmed and collected: all end with the rows of the table.
func TestClientsOfHistories(t *testing.T) {
	clients := clientsDefault
	if s := os.Getenv("SHAPELINE_SIM_CLIENTS"); s != "" {
		var err error
		if clients, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	bases, trims, late := 0, 0, 0
	for seed := range uint64(clients+clientsPerHistory-1) / clientsPerHistory {
		synctest.Test(t, func(t *testing.T) {
			h := newHistory(t, seed)
			defer func() { h.close() }()
			src := body.NewSource(h.store, 1<<20)
			readers := make([]*reader, 0, clientsPerHistory)
			look := func(r *reader) bool {
				idle, err := h.request(t.Context(), src, r)
				if err != nil {
					t.Fatalf("seed %d: reader at %s of %s: %v", seed, r.at, r.handle, err)
				}
				return idle
			}
			for range 200 {
				h.transaction()
				for range 3 {
					if len(readers) < clientsPerHistory {
						sh, _ := h.state.Shape(historyShape)
						r := &reader{}
						r.start(sh.Newest())
						readers = append(readers, r)
					}
				}
				for range 40 {
					look(readers[h.rnd.IntN(len(readers))])
				}
				if h.rnd.IntN(10) == 0 {
					h.compactions(seed)
				}
				if h.rnd.IntN(60) == 0 { // hours pass: what was superseded is kept no longer
					time.Sleep(90 * time.Minute)
				}
			}
			want := h.want()
			for i, r := range readers {
				for !look(r) {
				}
				if !maps.EqualFunc(r.rows, want, maps.Equal) {
					t.Fatalf("seed %d: reader %d of %s at %s has %d rows that are not the table's %d", seed, i, r.handle, r.at, len(r.rows), len(want))
				}
				late += r.late
			}
			sh, _ := h.state.Shape(historyShape)
			bases += len(sh.Rebases)
			if !sh.Trimmed.IsBefore() {
				trims++
			}
			report, err := audit.Check(t.Context(), h.store, nil)
			if err != nil || len(report.Problems) > 0 {
				t.Fatalf("seed %d: bucket check: %v, %+v", seed, err, report)
			}
		})
	}
	t.Logf("%d clients, %d bases kept, %d histories trimmed, %d times a client started over", clients, bases, trims, late)
	if bases == 0 || trims == 0 || late == 0 {
		t.Error("the histories do not test what they are for")
	}
}

// compactions does what the compactor does from time to time; now and then after a takeover.
func (h *history) compactions(seed uint64) {
	h.t.Helper()
	if h.rnd.IntN(5) == 0 {
		h.close()
		h.open()
		h.compactor()
	}
	if err := h.c.Work(h.t.Context(), h.rnd.IntN(2) == 0); err != nil {
		h.t.Fatalf("seed %d: %v", seed, err)
	}
}
