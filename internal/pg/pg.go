// Package pg is the vocabulary of what Postgres says: log sequence numbers, transaction ids, snapshots,
// relations, rows and changes. It holds data, parses it and prints it; it opens no connection and knows no
// bytes of the replication protocol (ingest/pgoutput does).
//
// The one idea: a value is the text that Postgres printed for it, as a slice of the buffer that it came in,
// and NULL is a nil slice. Nothing is converted before something needs it converted.
package pg

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning. Zero is "none".
type LSN uint64

// ParseLSN reads what LSN.String prints: two hexadecimal numbers of at most 32 bits, upper case, without
// leading zeros, separated by a slash.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, herr := strconv.ParseUint(hi, 16, 32)
	l, lerr := strconv.ParseUint(lo, 16, 32)
	lsn := LSN(h<<32 | l)
	if !ok || herr != nil || lerr != nil || lsn.String() != s {
		return 0, fmt.Errorf("LSN %q is not of the form 16/B374D848", s)
	}
	return lsn, nil
}

// String prints l as Postgres does, for example 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// IsZero reports whether l is the zero LSN, which no record has.
func (l LSN) IsZero() bool { return l == 0 }

// Compare orders LSNs by position.
func (l LSN) Compare(o LSN) int { return cmp.Compare(l, o) }

// OID is the object id of a catalogue row.
type OID uint32

// XID is a transaction id as the replication stream carries it: the low 32 bits of a counter that wraps.
type XID uint32

// Before reports whether x was assigned before y, for ids less than 2^31 transactions apart.
func (x XID) Before(y XID) bool { return int32(x-y) < 0 }

// Op says what a change did.
type Op byte

// The operations of the replication stream.
const (
	Insert   Op = 'I'
	Update   Op = 'U'
	Delete   Op = 'D'
	Truncate Op = 'T'
)

// String returns the operation's SQL verb in lower case.
func (o Op) String() string {
	switch o {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Truncate:
		return "truncate"
	}
	return fmt.Sprintf("op(%q)", byte(o))
}

// Row holds one value a column, in the relation's column order. A nil value is NULL; an empty one is the
// empty text. The values are slices of a buffer that the maker of the row owns: they are valid until its next
// call, and must be copied to be kept.
type Row [][]byte

// Clone copies r and its values into one buffer of its own.
func (r Row) Clone() Row {
	if r == nil {
		return nil
	}
	n := 0
	for _, v := range r {
		n += len(v)
	}
	buf, c := make([]byte, 0, n), make(Row, len(r))
	for i, v := range r {
		if v == nil {
			continue
		}
		at := len(buf)
		buf = append(buf, v...)
		c[i] = buf[at:len(buf):len(buf)]
	}
	return c
}

// Change is one row's change. Old is complete for updates and deletes, because the table's replica identity is
// FULL; New is complete for inserts and updates, unchanged TOAST values filled from Old.
type Change struct {
	Op       Op
	Relation *Relation
	Old, New Row
}

// Txn identifies a committed transaction. Commit is the position of its commit record (pgoutput's "final
// LSN"), by which clients know it; End is the position after it, from which a reader goes on.
type Txn struct {
	XID    XID
	Commit LSN
	End    LSN
}
