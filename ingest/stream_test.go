package ingest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// The messages of the replication protocol, version 1, as Postgres would send them for the table below.

var testTable = &pg.Relation{OID: 7, Schema: "public", Name: "t", Columns: []pg.Column{
	{Name: "id", Type: 23, Typmod: -1, TypeName: "int4", TypeSQL: "integer", PK: 1, NotNull: true},
	{Name: "v", Type: 25, Typmod: -1, TypeName: "text", TypeSQL: "text", Collation: "default"},
}}

func be(b []byte, vs ...any) []byte {
	for _, v := range vs {
		switch v := v.(type) {
		case string:
			b = append(append(b, v...), 0)
		case byte:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		default:
			panic(fmt.Sprintf("%T", v))
		}
	}
	return b
}

func msgBegin(xid uint32, commit uint64) []byte { return be([]byte{'B'}, commit, uint64(0), xid) }
func msgCommit(commit uint64) []byte            { return be([]byte{'C'}, byte(0), commit, commit+8, uint64(0)) }

func msgRelation(rel *pg.Relation) []byte {
	b := be([]byte{'R'}, uint32(rel.OID), rel.Schema, rel.Name, byte('f'), uint16(len(rel.Columns)))
	for _, c := range rel.Columns {
		b = be(b, byte(1), c.Name, uint32(c.Type), uint32(0xffffffff))
	}
	return b
}

func tuple(b []byte, values ...string) []byte {
	b = be(b, uint16(len(values)))
	for _, v := range values {
		b = append(be(b, byte('t'), uint32(len(v))), v...)
	}
	return b
}

func msgInsert(values ...string) []byte {
	return tuple(be([]byte{'I'}, uint32(7), byte('N')), values...)
}
func msgDelete(values ...string) []byte {
	return tuple(be([]byte{'D'}, uint32(7), byte('O')), values...)
}
func msgUpdate(old, row []string) []byte {
	b := tuple(be([]byte{'U'}, uint32(7), byte('O')), old...)
	return tuple(append(b, 'N'), row...)
}
func msgTruncate() []byte { return be([]byte{'T'}, uint32(1), byte(0), uint32(7)) }

// rig is a turn with shapes, and a catalogue that its frames go to.
type rig struct {
	t *testing.T
	turn
	state   *catalog.State
	frames  []segment.Frame
	dropped []shape.ID
	slots   uint64
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, state: catalog.New()}
	r.tables, r.chunkBytes = make(map[pg.OID]*table), 1<<20
	r.drop = func(m *member, _ *shape.Refusal) {
		if !m.gone {
			m.table.remove(m)
			r.dropped = append(r.dropped, m.id)
		}
	}
	return r
}

// shape registers a shape; waits says whether it still waits for its snapshot.
func (r *rig) shape(id shape.ID, clause string, waits bool) *member {
	r.t.Helper()
	expr, err := where.Parse(clause, testTable, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.slots++
	m := &member{id: id, slot: r.slots, info: &catalog.Info{ID: id, Relation: testTable, Columns: []int{0, 1},
		Definition: shape.Definition{Replica: shape.ReplicaDefault, Where: clause}}}
	if r.tables[testTable.OID] == nil {
		r.tables[testTable.OID] = newTable(testTable)
	}
	r.tables[testTable.OID].add(m, expr)
	m.opening = &opening{member: m, before: r.recent.n}
	if !waits {
		r.admit(m, &catalog.Base{Pages: 1})
		m.snapshot = nil
	}
	return m
}

func (r *rig) feed(msgs ...[]byte) {
	r.t.Helper()
	for _, m := range msgs {
		if err := r.take(m); err != nil {
			r.t.Fatal(err)
		}
	}
}

// cut closes the frame as the engine does, inside a transaction or not.
func (r *rig) cut() {
	var back []held
	if r.inTx {
		back = r.holdBack()
	}
	f := r.frame.seal(r.visible, r.end)
	b := segment.AppendFrame(nil, f)
	var decoded segment.Frame
	if _, err := segment.DecodeFrame(b, &decoded); err != nil {
		r.t.Fatal(err)
	}
	r.frames = append(r.frames, decoded)
	if _, err := r.state.Apply(segment.Meta{Seq: uint64(len(r.frames)), Epoch: 1}, []segment.Frame{decoded}); err != nil {
		r.t.Fatal(err)
	}
	r.frame.reset()
	r.putBack(back)
}

// log is what the frames hold for a shape: offset, L for last, C for a chunk's end.
func (r *rig) log(id shape.ID) (entries []string) {
	for _, f := range r.frames {
		for _, p := range f.Postings {
			if p.Shape != id {
				continue
			}
			for _, ref := range p.Refs {
				s := f.Messages[ref.Message()].Offset.String()
				if ref.Last() {
					s += "L"
				}
				if ref.ChunkEnd() {
					s += "C"
				}
				entries = append(entries, s)
			}
		}
	}
	return entries
}
