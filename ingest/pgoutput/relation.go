package pgoutput

import (
	"fmt"

	"github.com/shapeline/shapeline/internal/pg"
)

// columnBytesMin is the least that a column takes in a relation message: flags, an empty name's end, type, typmod.
const columnBytesMin = 1 + 1 + 4 + 4

// relation reads a relation message and remembers it. It returns the known relation if the message says nothing new.
func (d *Decoder) relation(r *reader) (*pg.Relation, error) {
	if r.left() < 4 {
		return nil, r.malformed("too short")
	}
	oid := pg.OID(r.uint32())
	schema, ok := r.text()
	if !ok {
		return nil, r.malformed("schema without an end")
	}
	name, ok := r.text()
	if !ok {
		return nil, r.malformed("name without an end")
	}
	if r.left() < 3 {
		return nil, r.malformed("too short")
	}
	identity := r.byte()
	columns, err := readColumns(r, int(r.uint16()))
	if err != nil {
		return nil, err
	}
	rel := &pg.Relation{OID: oid, Schema: string(schema), Name: string(name), Columns: columns}
	rel.ReplicaIdentity = string([]byte{identity})
	if len(schema) == 0 { // how pgoutput writes it
		rel.Schema = "pg_catalog"
	}
	if known := d.relations[oid]; known != nil && same(known, rel) {
		return known, nil
	}
	if d.relations == nil {
		d.relations = make(map[pg.OID]*pg.Relation)
	}
	d.relations[oid] = rel
	d.last = nil
	return rel, nil
}

func readColumns(r *reader, n int) ([]pg.Column, error) {
	if n*columnBytesMin > r.left() {
		return nil, r.malformed("more columns than the message holds")
	}
	columns := make([]pg.Column, n)
	for i := range columns {
		if r.left() < columnBytesMin {
			return nil, r.malformed("too short")
		}
		r.byte() // whether the column is part of the replica identity
		name, ok := r.text()
		if !ok {
			return nil, r.malformed("column name without an end")
		}
		if r.left() < 8 {
			return nil, r.malformed("too short")
		}
		columns[i] = pg.Column{Name: string(name), Type: pg.OID(r.uint32()), Typmod: int32(r.uint32())}
	}
	return columns, nil
}

// same compares everything that the stream describes.
func same(a, b *pg.Relation) bool {
	if !a.SameRows(b) || a.ReplicaIdentity != b.ReplicaIdentity {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i].Typmod != b.Columns[i].Typmod {
			return false
		}
	}
	return true
}

// known reads a relation's id and returns the relation.
func (d *Decoder) known(r *reader) (*pg.Relation, error) {
	if r.left() < 4 {
		return nil, r.malformed("too short")
	}
	oid := pg.OID(r.uint32())
	if d.last != nil && d.last.OID == oid {
		return d.last, nil
	}
	rel := d.relations[oid]
	if rel == nil {
		return nil, r.malformed(fmt.Sprintf("relation %d has not been described", oid))
	}
	d.last = rel
	return rel, nil
}

func (d *Decoder) truncate(r *reader) ([]*pg.Relation, error) {
	if r.left() < 5 {
		return nil, r.malformed("too short")
	}
	n := r.uint32()
	r.byte() // CASCADE, RESTART IDENTITY
	if uint64(n)*4 > uint64(r.left()) {
		return nil, r.malformed("more relations than the message holds")
	}
	d.truncated = d.truncated[:0]
	for range n {
		rel, err := d.known(r)
		if err != nil {
			return nil, err
		}
		d.truncated = append(d.truncated, rel)
	}
	return d.truncated, nil
}
