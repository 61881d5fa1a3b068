package ingest

import (
	"errors"
	"fmt"

	"github.com/shapeline/shapeline/ingest/match"
	"github.com/shapeline/shapeline/ingest/pgoutput"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// turn is the part of the pipeline that turns messages of the stream into postings. It does no I/O.
type turn struct {
	decoder pgoutput.Decoder
	message pgoutput.Message
	tables  map[pg.OID]*table
	frame   frame
	hits    []match.Hit

	chunkBytes uint64

	inTx      bool
	skip      bool // the transaction is in the log already
	tx        pg.Txn
	txSerial  uint64
	txMembers []*member // those the transaction has touched so far
	op        uint64    // position of the next change in the transaction
	change    uint64    // serial of the change, for the render caches
	visible   pg.LSN    // commit LSN of the last complete transaction
	end       pg.LSN    // where the stream goes on after it

	filtering []*member // members with a snapshot that the stream has not passed
	recent    recentXIDs
	buffered  int // bytes held for openings

	// drop ends a shape; the engine sets it.
	drop func(m *member, why *shape.Refusal)
}

// take handles one message of the stream. An error means that the stream cannot be read on.
func (t *turn) take(data []byte) error {
	m := &t.message
	if err := t.decoder.Decode(data, m); err != nil {
		var identity *pgoutput.ReplicaIdentityError
		if !errors.As(err, &identity) {
			return fmt.Errorf("decode replication stream: %w", err)
		}
		if known := t.tables[identity.Relation.OID]; known != nil && !t.skip {
			t.lose(known)
		}
		t.op += 2
		return nil
	}
	switch m.Kind {
	case pgoutput.Begin:
		if t.inTx {
			return fmt.Errorf("decode replication stream: transaction %d begins inside another", m.Txn.XID)
		}
		t.begin(m.Txn)
	case pgoutput.Commit:
		if !t.inTx {
			return errors.New("decode replication stream: commit without begin")
		}
		t.commit(m.Txn)
	case pgoutput.Truncate:
		t.op += 2
		if t.skip {
			return nil
		}
		for _, rel := range m.Truncated {
			if known := t.tables[rel.OID]; known != nil {
				t.dropTable(known)
			}
		}
	case pgoutput.Insert, pgoutput.Update, pgoutput.Delete:
		if !t.inTx {
			return errors.New("decode replication stream: row outside a transaction")
		}
		if !t.skip {
			t.row(&m.Change)
		}
		t.op += 2
	}
	return nil
}

// dropTable ends the shapes of a table: their clients start over.
func (t *turn) dropTable(known *table) {
	for _, m := range known.members {
		t.drop(m, nil)
	}
}

func (t *turn) begin(tx pg.Txn) {
	t.inTx, t.tx, t.op = true, tx, 0
	t.txSerial++
	t.txMembers = t.txMembers[:0]
	t.skip = tx.Commit <= t.visible
	t.recent.add(tx.XID)
	n := 0
	for _, m := range t.filtering {
		if !m.gone && m.snapshot != nil && m.snapshot.Passed(tx.XID) {
			m.snapshot = nil
		}
		if !m.gone && m.snapshot != nil {
			t.filtering[n] = m
			n++
		}
	}
	t.filtering = t.filtering[:n]
}

func (t *turn) commit(tx pg.Txn) {
	for _, m := range t.txMembers {
		if m.gone {
			continue
		}
		if o := m.opening; o != nil {
			o.buffer[len(o.buffer)-1].last = true
		} else {
			m.refs[len(m.refs)-1] |= segment.RefLast
		}
	}
	t.inTx = false
	if !t.skip {
		t.visible, t.end = t.tx.Commit, tx.End
	}
	t.skip = false
}

// row finds the shapes that a change touches and gives each its message.
func (t *turn) row(c *pg.Change) {
	known := t.tables[c.Relation.OID]
	if known == nil {
		return
	}
	if c.Relation != known.seen {
		if !known.rel.SameRows(c.Relation) {
			t.lose(known)
			return
		}
		known.seen = c.Relation
	}
	t.change++
	t.hits = known.index.Match(c, t.hits[:0])
	for i := range t.hits {
		h := &t.hits[i]
		m := known.members[h.ID]
		if m.snapshot != nil && m.snapshot.Sees(t.tx.XID) {
			continue
		}
		p := m.projection
		p.begin(t.change)
		switch {
		case h.New && !h.Old:
			t.post(m, t.insert(p, c))
		case h.Old && !h.New:
			t.post(m, t.remove(p, c))
		default:
			for _, msg := range t.update(p, c) {
				t.post(m, msg)
			}
		}
	}
}

// lose ends the shapes that needed a row which cannot be read: the table is another than when they were opened, or
// its old rows do not come. A shape whose base has the transaction did not need it; one that is being opened will
// find out.
func (t *turn) lose(known *table) {
	for _, m := range known.members {
		switch {
		case m.opening != nil:
			m.opening.unread = append(m.opening.unread, t.tx.XID)
		case m.snapshot == nil || !m.snapshot.Sees(t.tx.XID):
			t.drop(m, nil)
		}
	}
}

func (t *turn) place(half uint64) shape.Place {
	return shape.Place{XID: t.tx.XID, LSN: t.tx.Commit, Op: t.op + half}
}

func (t *turn) insert(p *projection, c *pg.Change) int {
	if p.insert < 0 {
		t.frame.bodies = p.AppendInsert(t.frame.bodies, t.place(0), c.New, nil)
		p.insert = t.frame.message(t.place(0).Offset())
	}
	return p.insert
}

func (t *turn) remove(p *projection, c *pg.Change) int {
	if p.remove < 0 {
		t.frame.bodies = p.AppendDelete(t.frame.bodies, t.place(0), c.Old, nil)
		p.remove = t.frame.message(t.place(0).Offset())
	}
	return p.remove
}

// update renders the change of a row that was and is in the shape (protocol reference, 5.4).
func (t *turn) update(p *projection, c *pg.Change) []int {
	if p.judged {
		return p.update
	}
	p.judged = true
	f := &t.frame
	switch {
	case p.Rekeys(c.Old, c.New):
		f.bodies = p.AppendDelete(f.bodies, t.place(0), c.Old, c.New)
		p.update = append(p.update, f.message(t.place(0).Offset()))
		f.bodies = p.AppendInsert(f.bodies, t.place(1), c.New, c.Old)
		p.update = append(p.update, f.message(t.place(1).Offset()))
	case p.Changes(c.Old, c.New):
		f.bodies = p.AppendUpdate(f.bodies, t.place(0), c.Old, c.New)
		p.update = append(p.update, f.message(t.place(0).Offset()))
	}
	return p.update
}

// post gives message i of the frame to the shape, or holds a copy while the shape is being opened.
func (t *turn) post(m *member, i int) {
	if m.lastTx != t.txSerial {
		m.lastTx = t.txSerial
		t.txMembers = append(t.txMembers, m)
	}
	if o := m.opening; o != nil {
		body := append([]byte(nil), t.frame.body(i)...)
		o.buffer = append(o.buffer, entry{t.tx.XID, t.frame.offsets[i], body, false})
		t.buffered += len(body)
		return
	}
	t.frame.post(m, i, t.closes(m, t.frame.body(i)))
}

// closes counts body into the shape's open chunk and says whether it closes it.
func (t *turn) closes(m *member, body []byte) segment.Ref {
	m.unclosed += uint64(len(body))
	if m.unclosed < t.chunkBytes {
		return 0
	}
	m.unclosed = 0
	return segment.RefChunkEnd
}

// admit puts an opened shape's record and what was held for it into the frame. Call it between transactions only.
func (t *turn) admit(m *member, stored *catalog.Base) {
	o := m.opening
	m.opening = nil
	t.frame.records = append(t.frame.records, catalog.OpenedRecord(m.info, stored))
	for i := range o.buffer {
		e := &o.buffer[i]
		t.buffered -= len(e.body)
		if m.info.Snapshot.Sees(e.xid) {
			continue
		}
		t.frame.bodies = append(t.frame.bodies, e.body...)
		msg := t.frame.message(e.offset)
		marks := t.closes(m, e.body)
		if e.last {
			marks |= segment.RefLast
		}
		t.frame.post(m, msg, marks)
	}
	o.buffer = nil
	snapshot := m.info.Snapshot
	m.snapshot = &snapshot
	t.filtering = append(t.filtering, m)
}

// holdBack takes the last message of each shape that the transaction in progress has touched out of the frame, so
// that its commit can still mark it. The result goes into the next frame by putBack.
func (t *turn) holdBack() []held {
	var back []held
	for _, m := range t.txMembers {
		if m.gone || m.opening != nil || len(m.refs) == 0 {
			continue
		}
		r := m.refs[len(m.refs)-1]
		m.refs = m.refs[:len(m.refs)-1]
		back = append(back, held{m, r, append([]byte(nil), t.frame.body(r.Message())...), t.frame.offsets[r.Message()]})
	}
	return back
}

type held struct {
	member *member
	ref    segment.Ref
	body   []byte
	offset shape.Offset
}

func (t *turn) putBack(back []held) {
	again := make(map[int]int) // message number in the old frame → in the new one
	for _, h := range back {
		i, ok := again[h.ref.Message()]
		if !ok {
			t.frame.bodies = append(t.frame.bodies, h.body...)
			i = t.frame.message(h.offset)
			again[h.ref.Message()] = i
		}
		t.frame.post(h.member, i, h.ref&(segment.RefLast|segment.RefChunkEnd))
	}
}

// recentXIDs remembers the transactions decoded last, in order.
type recentXIDs struct {
	ring [recentMax]pg.XID
	n    uint64 // decoded so far
}

// recentMax bounds how far back a commit that snapshots do not see yet is looked for. Such a commit waits for a
// synchronous standby, and so do all later ones: few transactions get past it.
const recentMax = 1 << 16

func (r *recentXIDs) add(x pg.XID) {
	r.ring[r.n%recentMax] = x
	r.n++
}

// unseen reports whether a transaction decoded before the serial number is not in the snapshot: the snapshot was
// taken between the commit's decoding and its becoming visible (storage reference, 2.3).
func (r *recentXIDs) unseen(s pg.Snapshot, before uint64) bool {
	from := uint64(0)
	if r.n > recentMax {
		from = r.n - recentMax
	}
	for i := from; i < min(before, r.n); i++ {
		if !s.Sees(r.ring[i%recentMax]) {
			return true
		}
	}
	return false
}
