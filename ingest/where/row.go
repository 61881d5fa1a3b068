package where

import (
	"bytes"

	"github.com/shapeline/shapeline/ingest/where/datum"
	"github.com/shapeline/shapeline/internal/pg"
)

// Row is a view of one row for any number of expressions: each column is converted at most once, when an expression
// first looks at it. A Row is used again for row after row, by one goroutine.
type Row struct {
	rel    *pg.Relation
	types  []datum.Type
	values pg.Row
	cells  []cell
	turn   uint64 // of Reset; a cell of an earlier turn is stale

	slots  []datum.Value // results inside the expression being evaluated
	lookUp []byte        // the key that it looks up in a list
	key    []byte        // what Key returned last

	conversions int
}

type cell struct {
	turn  uint64
	value datum.Value
}

var badValue = datum.Value{State: datum.Bad}

// Reset makes r show values, a row of rel. r refers to values until the next Reset.
func (r *Row) Reset(rel *pg.Relation, values pg.Row) {
	if r.rel != rel {
		r.rel = rel
		r.types = make([]datum.Type, len(rel.Columns))
		for i := range rel.Columns {
			r.types[i] = datum.TypeOf(rel.Columns[i].Type)
		}
		r.cells = make([]cell, len(rel.Columns))
	}
	r.values = values
	r.turn++
}

// Conversions counts the values that r has converted since it was made.
func (r *Row) Conversions() int { return r.conversions }

// Key returns the key of a column's value, which Access compares with. It is valid until the next call. There is
// none for NULL, nor for a value or type without equality.
func (r *Row) Key(column int) (key []byte, ok bool) {
	if column >= len(r.values) || column >= len(r.types) || r.values[column] == nil {
		return nil, false
	}
	switch t := r.types[column]; t {
	case datum.Other:
		return nil, false
	case datum.Int2, datum.Int4, datum.Int8, datum.Text, datum.Varchar, datum.Name, datum.UUID:
		return r.values[column], true // see datum.Value.AppendKey
	case datum.Bpchar:
		return bytes.TrimRight(r.values[column], " "), true
	default:
		v := r.column(column)
		if v.State != datum.OK {
			return nil, false
		}
		r.key = v.AppendKey(r.key[:0], t)
		return r.key, true
	}
}

// column returns the value of a column, converted.
func (r *Row) column(i int) *datum.Value {
	if i >= len(r.values) || i >= len(r.cells) {
		return &badValue
	}
	c := &r.cells[i]
	if c.turn != r.turn {
		c.turn = r.turn
		c.value.Read(r.types[i], r.values[i])
		r.conversions++
	}
	return &c.value
}

// isNull reports whether a column is NULL, of whatever type.
func (r *Row) isNull(i int) bool { return i < len(r.values) && r.values[i] == nil }

// need makes room for n scratch values.
func (r *Row) need(n int) {
	if len(r.slots) < n {
		r.slots = make([]datum.Value, n)
	}
}
