package pgoutput_test

import (
	"slices"
	"testing"

	"github.com/shapeline/shapeline/ingest/pgoutput"
)

// FuzzDecode feeds two messages to a decoder that knows a table: the first may change what the second means.
func FuzzDecode(f *testing.F) {
	for _, b := range stream(f) {
		f.Add(b, []byte("T\x00\x00\x00\x01\x00\x00\x00\x40\x05"))
	}
	for _, in := range nasty {
		f.Add(relation("public", 'f', "\x00a\x00\x00\x00\x00\x19\xff\xff\xff\xff"), []byte(in))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := known(t)
		var m pgoutput.Message
		for _, b := range [][]byte{first, second} {
			if err := d.Decode(b, &m); err != nil {
				continue
			}
			for _, v := range slices.Concat(m.Change.Old, m.Change.New) {
				if cap(v) != len(v) {
					t.Errorf("value %q can be appended to in place", v)
				}
			}
			if c := m.Change; c.Relation != nil {
				width := len(c.Relation.Columns)
				if c.New != nil && len(c.New) != width || c.Old != nil && len(c.Old) != width {
					t.Errorf("rows of %d and %d values, relation of %d columns", len(c.Old), len(c.New), width)
				}
			}
		}
	})
}
