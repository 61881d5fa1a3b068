// Package pgoutput decodes the messages of Postgres' logical replication plug-in pgoutput, protocol version 1, in
// text: bytes in, package pg's values out. It opens no connection and keeps no position; ingest/postgres brings the
// bytes, ingest makes transactions of them. What it must remember between messages is the relations, which
// Postgres describes once a stream and again whenever they change.
//
// The one idea: a row's values are slices of the message. Nothing is copied, converted or allocated for a row; an
// update's unchanged TOAST values, which Postgres leaves out, are slices of the old row in the same message. So a
// row is valid as long as the message's bytes are, and until the next call of Decode.
//
// The bytes come from outside: every length is compared with what is left before it is used, and whatever does not
// fit is an error, never a panic.
package pgoutput

import (
	"time"

	"github.com/shapeline/shapeline/internal/pg"
)

// Kind is what a message says: the letter that it begins with.
type Kind byte

// The kinds of messages of protocol version 1.
const (
	Begin         Kind = 'B'
	Commit        Kind = 'C'
	Origin        Kind = 'O'
	Relation      Kind = 'R'
	Type          Kind = 'Y'
	Insert        Kind = 'I'
	Update        Kind = 'U'
	Delete        Kind = 'D'
	Truncate      Kind = 'T'
	CustomMessage Kind = 'M' // pg_logical_emit_message; sent only when asked for
)

// String names k for errors.
func (k Kind) String() string {
	switch k {
	case Begin:
		return "begin"
	case Commit:
		return "commit"
	case Origin:
		return "origin"
	case Relation:
		return "relation"
	case Type:
		return "type"
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Truncate:
		return "truncate"
	case CustomMessage:
		return "custom"
	}
	return "unknown"
}

// Message is one decoded message. Kind says which of the other fields are set; the rest are zero.
type Message struct {
	Kind Kind

	Txn  pg.Txn    // Begin: XID and Commit. Commit: Commit and End
	Time time.Time // Begin, Commit: when the transaction committed, by the server's clock

	// Relation: what changes are decoded with from here on. It is the same pointer as before when nothing that the
	// stream describes has changed, and it is never written to again.
	Relation *pg.Relation

	Change pg.Change // Insert, Update, Delete: valid until the next Decode, and no longer than the message's bytes

	Truncated []*pg.Relation // Truncate: valid until the next Decode
}

// Decoder decodes the messages of one stream, in order. The zero Decoder is ready; a new stream, such as after a
// reconnect, needs a new one. It is not for concurrent use.
type Decoder struct {
	relations map[pg.OID]*pg.Relation
	last      *pg.Relation // what the row before was of: most rows come in runs of one table
	oldRow    pg.Row
	newRow    pg.Row
	truncated []*pg.Relation
}

// Decode reads the message b into m, all of which it overwrites. It returns a *MalformedError for bytes that the
// protocol does not allow or that do not fit the relations seen so far: the stream cannot be read on. It returns a
// *ReplicaIdentityError for an update or delete without its old row: the stream can, without that change.
func (d *Decoder) Decode(b []byte, m *Message) error {
	*m = Message{}
	if len(b) == 0 {
		return &MalformedError{Reason: "empty message"}
	}
	r := reader{b: b, at: 1, kind: Kind(b[0])}
	m.Kind = r.kind
	var err error
	switch m.Kind {
	case Insert:
		err = d.insert(&r, &m.Change)
	case Update:
		err = d.update(&r, &m.Change)
	case Delete:
		err = d.delete(&r, &m.Change)
	case Begin:
		err = begin(&r, m)
	case Commit:
		err = commit(&r, m)
	case Relation:
		m.Relation, err = d.relation(&r)
	case Truncate:
		m.Truncated, err = d.truncate(&r)
	case Origin, Type, CustomMessage:
		err = ignored(&r)
	default:
		err = &MalformedError{Kind: m.Kind, Reason: "no such message in protocol version 1"}
	}
	if err == nil && r.left() > 0 {
		err = r.malformed("bytes behind its end")
	}
	if err != nil {
		*m = Message{Kind: m.Kind}
	}
	return err
}

func begin(r *reader, m *Message) error {
	if r.left() < 20 {
		return r.malformed("too short")
	}
	m.Txn.Commit = pg.LSN(r.uint64())
	m.Time = timestamp(r.uint64())
	m.Txn.XID = pg.XID(r.uint32())
	return nil
}

func commit(r *reader, m *Message) error {
	if r.left() < 25 {
		return r.malformed("too short")
	}
	if flags := r.byte(); flags != 0 {
		return r.malformed("unknown flags")
	}
	m.Txn.Commit = pg.LSN(r.uint64())
	m.Txn.End = pg.LSN(r.uint64())
	m.Time = timestamp(r.uint64())
	return nil
}

// ignored checks the form of a message whose content nobody needs.
func ignored(r *reader) error {
	fixed := 4 // bytes before the first text
	switch r.kind {
	case Origin:
		fixed = 8
	case CustomMessage:
		fixed = 9
	}
	if r.left() < fixed {
		return r.malformed("too short")
	}
	r.at += fixed
	if _, ok := r.text(); !ok {
		return r.malformed("text without an end")
	}
	switch r.kind {
	case Type:
		if _, ok := r.text(); !ok {
			return r.malformed("text without an end")
		}
	case CustomMessage:
		if r.left() < 4 {
			return r.malformed("too short")
		}
		n := r.uint32()
		if uint64(n) > uint64(r.left()) {
			return r.malformed("content longer than the message")
		}
		r.at += int(n)
	}
	return nil
}

// postgresEpoch is the beginning of the server's timestamps, in microseconds of Unix time.
const postgresEpoch = 946_684_800_000_000

// timestamp converts microseconds since 2000-01-01. Values near the ends of the range wrap, which is harmless.
func timestamp(micros uint64) time.Time { return time.UnixMicro(int64(micros) + postgresEpoch).UTC() }
