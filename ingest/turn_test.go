package ingest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

func wantLog(t *testing.T, r *rig, id shape.ID, want ...string) {
	t.Helper()
	if got := r.log(id); !slices.Equal(got, want) {
		t.Errorf("shape %d has %v, want %v", id, got, want)
	}
}

// TestMoves: where a row was and is decides the operation; positions count all changes by twos.
func TestMoves(t *testing.T) {
	r := newRig(t)
	r.shape(1, "", false)
	r.shape(2, "v = 'a'", false)
	r.cut()
	r.feed(msgRelation(testTable), msgBegin(800, 100),
		msgInsert("1", "a"), // 0
		msgUpdate([]string{"1", "a"}, []string{"1", "b"}), // 2: leaves 2
		msgUpdate([]string{"1", "b"}, []string{"1", "b"}), // 4: nothing
		msgUpdate([]string{"1", "b"}, []string{"2", "a"}), // 6: a new key; enters 2
		msgDelete("2", "a"), // 8
		msgCommit(100))
	r.cut()
	wantLog(t, r, 1, "100_0", "100_2", "100_6", "100_7", "100_8L")
	wantLog(t, r, 2, "100_0", "100_2", "100_6", "100_8L")
	var ops []string
	for _, m := range r.frames[1].Messages {
		var msg struct{ Headers struct{ Operation string } }
		if err := json.Unmarshal(shape.AppendEnd(slices.Clone(m.Body), false), &msg); err != nil {
			t.Fatal(err)
		}
		ops = append(ops, m.Offset.String()+" "+msg.Headers.Operation)
	}
	want := []string{"100_0 insert", "100_2 update", "100_2 delete", "100_6 delete", "100_7 insert", "100_6 insert", "100_8 delete"}
	if !slices.Equal(ops, want) {
		t.Errorf("messages %v, want %v", ops, want)
	}
}

// TestRenderedOnce: a change that many shapes have is one message.
func TestRenderedOnce(t *testing.T) {
	r := newRig(t)
	for i := range 500 {
		r.shape(shape.ID(i+1), fmt.Sprintf("id = 1 OR id = -%d", i+2), false)
	}
	r.cut()
	r.feed(msgRelation(testTable), msgBegin(800, 100), msgInsert("1", "a"), msgCommit(100))
	if n := len(r.frame.ends); n != 1 {
		t.Errorf("%d messages", n)
	}
	r.cut()
	if n := len(r.frames[1].Postings); n != 500 {
		t.Errorf("%d postings", n)
	}
}

// TestCutFrames: a transaction over many frames is invisible until its commit, and last marks only its end.
func TestCutFrames(t *testing.T) {
	r := newRig(t)
	r.shape(1, "", false)
	r.shape(2, "v = 'a'", false)
	r.cut()
	r.feed(msgRelation(testTable), msgBegin(800, 100), msgInsert("1", "a"), msgInsert("2", "b"))
	r.cut()
	r.feed(msgInsert("3", "b"))
	r.cut()
	if p, _ := r.state.Plan(shape.Handle{Shape: 1}, shape.SnapshotEnd); p.Last != shape.SnapshotEnd {
		t.Errorf("visible before the commit: %v", p.Last)
	}
	r.feed(msgInsert("4", "b"), msgCommit(100))
	r.cut()
	wantLog(t, r, 1, "100_0", "100_2", "100_4", "100_6L")
	wantLog(t, r, 2, "100_0L")
	if p, _ := r.state.Plan(shape.Handle{Shape: 1}, shape.SnapshotEnd); p.Last != shape.At(100, 6) || p.Visible != 100 {
		t.Errorf("after the commit: %v, visible %v", p.Last, p.Visible)
	}
}

// TestStitching: an opening shape gets exactly the transactions that its snapshot does not have.
func TestStitching(t *testing.T) {
	r := newRig(t)
	m := r.shape(1, "", true)
	r.feed(msgRelation(testTable))
	for i, xid := range []uint32{799, 801, 802, 805} { // before, in progress, visible, later
		lsn := uint64(100 + 10*i)
		r.feed(msgBegin(xid, lsn), msgInsert(fmt.Sprint(i), "a"), msgInsert(fmt.Sprint(i), "b"), msgCommit(lsn))
	}
	r.cut()
	wantLog(t, r, 1)
	m.info.Snapshot = pg.Snapshot{Xmin: 800, Xmax: 803, Xip: []uint64{801}}
	r.admit(m, nil)
	r.feed(msgBegin(800, 140), msgInsert("4", "a"), msgCommit(140)) // committed before the snapshot, decoded late
	if m.snapshot == nil {
		t.Error("the filter was dropped before the stream passed the snapshot")
	}
	r.feed(msgBegin(803, 150), msgInsert("5", "a"), msgCommit(150))
	if m.snapshot != nil || len(r.filtering) != 0 {
		t.Error("the filter outlived its use")
	}
	r.cut()
	wantLog(t, r, 1, "110_0", "110_2L", "130_0", "130_2L", "150_0L")
	if r.buffered != 0 {
		t.Errorf("%d bytes still counted as held", r.buffered)
	}
}

// TestReplay: what the log has is skipped, and the same stream gives the same frames.
func TestReplay(t *testing.T) {
	run := func(from pg.LSN) []segment.Frame {
		r := newRig(t)
		r.shape(1, "", false)
		r.cut()
		r.visible = from
		r.feed(msgRelation(testTable))
		for lsn := uint64(100); lsn < 104; lsn++ {
			r.feed(msgBegin(uint32(700+lsn), lsn), msgInsert(fmt.Sprint(lsn), "a"), msgCommit(lsn))
			r.cut()
		}
		return r.frames[1:]
	}
	all, rest := run(0), run(101)
	for i := range all {
		switch {
		case i < 2 && len(rest[i].Messages) != 0:
			t.Errorf("transaction %d came again", i)
		case i >= 2 && string(segment.AppendFrame(nil, &all[i])) != string(segment.AppendFrame(nil, &rest[i])):
			t.Errorf("transaction %d differs in the replay", i)
		}
	}
}

func TestChunksCloseInTheLog(t *testing.T) {
	r := newRig(t)
	r.chunkBytes = 400
	m := r.shape(1, "", false)
	r.cut()
	r.feed(msgRelation(testTable), msgBegin(800, 100))
	for i := range 4 {
		r.feed(msgInsert(fmt.Sprint(i), strings.Repeat("x", 150)))
	}
	r.feed(msgCommit(100))
	r.cut()
	wantLog(t, r, 1, "100_0", "100_2C", "100_4", "100_6LC")
	if sh := r.state.Shapes()[0]; m.unclosed != 0 || sh.Unclosed != m.unclosed {
		t.Errorf("unclosed %d, in the catalogue %d", m.unclosed, sh.Unclosed)
	}
}

func TestWhatEndsShapes(t *testing.T) {
	other := *testTable
	other.Columns = append(slices.Clone(testTable.Columns), pg.Column{Name: "w", Type: 25})
	noOld := tuple(be([]byte{'D'}, uint32(7), byte('K')), "1", "a")
	for name, msgs := range map[string][][]byte{
		"truncate":         {msgRelation(testTable), msgTruncate()},
		"another column":   {msgRelation(&other), msgInsert("1", "a", "b")},
		"no whole old row": {msgRelation(testTable), noOld},
	} {
		r := newRig(t)
		r.shape(1, "", false)
		waiting := r.shape(2, "", true)
		r.cut()
		r.feed(msgBegin(800, 100))
		r.feed(msgs...)
		r.feed(msgCommit(100))
		slices.Sort(r.dropped)
		if name == "truncate" {
			if !slices.Equal(r.dropped, []shape.ID{1, 2}) {
				t.Errorf("%s: dropped %v", name, r.dropped)
			}
		} else if !slices.Equal(r.dropped, []shape.ID{1}) || !slices.Equal(waiting.opening.unread, []pg.XID{800}) {
			t.Errorf("%s: dropped %v, unread %v", name, r.dropped, waiting.opening.unread)
		}
	}
}

// TestRowsOfTheOldTable: a shape opened on a changed table is not ended by rows from before the change.
func TestRowsOfTheOldTable(t *testing.T) {
	old := *testTable
	old.Columns = testTable.Columns[:1]
	r := newRig(t)
	m := r.shape(1, "", true)
	m.info.Snapshot = pg.Snapshot{Xmin: 900, Xmax: 900}
	r.admit(m, &catalog.Base{})
	r.feed(msgRelation(&old), msgBegin(800, 100), msgInsert("1"), msgCommit(100))
	if r.dropped != nil {
		t.Errorf("dropped %v", r.dropped)
	}
}

func TestRecentXIDs(t *testing.T) {
	var r recentXIDs
	for x := range pg.XID(recentMax + 10) {
		r.add(x)
	}
	n := uint64(recentMax + 10)
	for _, c := range []struct {
		snap   pg.Snapshot
		before uint64
		want   bool
	}{
		{pg.Snapshot{Xmin: n, Xmax: n}, n, false},
		{pg.Snapshot{Xmin: n - 5, Xmax: n, Xip: []uint64{n - 5}}, n, true},
		{pg.Snapshot{Xmin: n - 5, Xmax: n, Xip: []uint64{n - 5}}, n - 5, false}, // buffered by then
		{pg.Snapshot{Xmin: n - 1, Xmax: n - 1}, n, true},
	} {
		if got := r.unseen(c.snap, c.before); got != c.want {
			t.Errorf("unseen(%v, %d) = %v", c.snap, c.before, got)
		}
	}
}

func TestBadStream(t *testing.T) {
	for name, msgs := range map[string][][]byte{
		"empty":                  {{}},
		"begin in begin":         {msgBegin(1, 1), msgBegin(2, 2)},
		"commit without begin":   {msgCommit(1)},
		"row without a begin":    {msgRelation(testTable), msgInsert("1", "a")},
		"row without a relation": {msgBegin(1, 1), msgInsert("1", "a")},
		"short":                  {msgBegin(1, 1)[:9]},
	} {
		r := newRig(t)
		var err error
		for _, m := range msgs {
			if err == nil {
				err = r.take(m)
			}
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
