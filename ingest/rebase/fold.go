package rebase

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/shapeline/shapeline/internal/shape"
)

// errHistory says that a log does not fit its base. Nobody's clients end up right on such a shape.
var errHistory = errors.New("the log does not fit the base that it goes on from")

// effect is what the log makes of one row.
type effect struct {
	kind kind
	row  []byte // what is left of the row's message, as appendKept makes it; of rows and overlays
}

type kind uint8

const (
	gone    kind = iota + 1 // there is no row
	whole                   // row is all of it
	overlay                 // row has the columns that changed
)

// fold gathers what a log does to the rows of one part of all keys.
type fold struct {
	seed        maphash.Seed
	part, parts uint64

	effects map[string]*effect
	order   []string // keys in the order of their first effect, so that equal input gives equal output
	change  shape.Change
	before  shape.Change
	scratch []byte
}

func newFold(seed maphash.Seed, part, parts int) *fold {
	return &fold{seed: seed, part: uint64(part), parts: uint64(parts), effects: make(map[string]*effect)}
}

// mine reports whether the key belongs to this fold's part.
func (f *fold) mine(key []byte) bool {
	return f.parts == 1 || maphash.Bytes(f.seed, key)%f.parts == f.part
}

// take folds the next entry of the log in. Like clients that hold rows by key, it lets an insert replace a row that is
// there, and a delete pass over one that is not: tables without a primary key have both.
func (f *fold) take(message []byte) error {
	c := &f.change
	if err := c.Read(message); err != nil {
		return err
	}
	if !f.mine(c.Key) {
		return nil
	}
	e := f.effects[string(c.Key)]
	if e == nil {
		e = &effect{}
		key := string(c.Key)
		f.effects[key] = e
		f.order = append(f.order, key)
	}
	switch c.Operation {
	case "insert":
		e.kind, e.row = whole, appendKept(e.row[:0], c)
	case "delete":
		e.kind, e.row = gone, nil
	case "update":
		switch e.kind {
		case gone:
			return fmt.Errorf("update of %s, which has been deleted: %w", c.Key, errHistory)
		case 0:
			e.kind, e.row = overlay, appendKept(nil, c)
			return nil
		}
		if err := f.before.Read(e.row); err != nil {
			return err
		}
		f.before.Value = shape.Overlay(f.before.Value, c.Value)
		f.scratch = appendKept(f.scratch[:0], &f.before)
		e.row = append(e.row[:0], f.scratch...)
	}
	return nil
}

// appendKept appends c without what only the stream needs.
func appendKept(dst []byte, c *shape.Change) []byte {
	kept := shape.Change{Key: c.Key, Value: c.Value, Headers: []byte(`"operation":"insert"`)}
	return shape.AppendChange(dst, &kept)
}

// row calls emit with what has become of a row of the base before, unless it is gone or not of this part.
func (f *fold) row(message []byte, emit func(*shape.Change) error) error {
	c := &f.change
	if err := c.Read(message); err != nil {
		return err
	}
	if !f.mine(c.Key) {
		return nil
	}
	e := f.effects[string(c.Key)]
	if e == nil {
		return emit(c)
	}
	if e.kind != overlay {
		return nil // it is gone, or another of that key comes in rest
	}
	if err := f.before.Read(e.row); err != nil {
		return err
	}
	c.Value = shape.Overlay(c.Value, f.before.Value)
	delete(f.effects, string(c.Key)) // rows without a primary key may share one
	return emit(c)
}

// rest calls emit with the rows that the base before did not have.
func (f *fold) rest(emit func(*shape.Change) error) error {
	for _, key := range f.order {
		e := f.effects[key]
		if e == nil || e.kind == gone {
			continue
		}
		if e.kind == overlay {
			return fmt.Errorf("update of %s, which was never there: %w", key, errHistory)
		}
		if err := f.change.Read(e.row); err != nil {
			return err
		}
		if err := emit(&f.change); err != nil {
			return err
		}
	}
	return nil
}
