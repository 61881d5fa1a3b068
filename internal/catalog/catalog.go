// Package catalog is the state that the log's records and postings add up to: which shapes there are, what they
// were opened with, where each one's base and log entries lie, up to which LSN everything is complete. Ingest and
// serve each keep one, fed by the same segments; checkpoints of it spare a reader the whole log. The package also
// knows the small objects by which planes that share only the bucket find and ask for shapes (definitions/ and
// requests/).
//
// It does not read the log (internal/shapelog does) nor the entries themselves: it says which segments to read.
// The one idea: the state is a pure fold over the log, so every process that has read as far knows the same.
package catalog

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// The kinds of record, and with them the format of their bodies (JSON): see FORMAT.md.
const (
	kindSource  byte = 1
	kindOpened  byte = 2
	kindReady   byte = 3
	kindDropped byte = 4
	kindPacked  byte = 5
	kindRebased byte = 6
	kindTrimmed byte = 7
)

// RecordKind names a kind of record for people.
func RecordKind(kind byte) string {
	names := [...]string{"?", "source", "opened", "ready", "dropped", "packed", "rebased", "trimmed"}
	if int(kind) < len(names) {
		return names[kind]
	}
	return names[0]
}

// Source names the stream of changes that a log was made from. Shapes do not survive a change of source: nothing
// says that the new one goes on where the old one ended.
type Source struct {
	System   string `json:"system"` // pg_control's system identifier
	Database string `json:"database"`
	Slot     string `json:"slot"`
	Made     string `json:"made"` // distinguishes two slots that had the same name
}

// Info is what a shape was opened with. It never changes, and is shared: read only.
type Info struct {
	ID         shape.ID         `json:"-"`
	Definition shape.Definition `json:"definition"` // as it was first asked for
	Canonical  string           `json:"canonical"`  // equal for definitions that mean the same shape
	Relation   *pg.Relation     `json:"relation"`
	Columns    []int            `json:"columns"` // places of the selected columns in Relation, ascending
	Schema     json.RawMessage  `json:"schema"`  // the electric-schema header
	Snapshot   pg.Snapshot      `json:"snapshot"`
}

// valid reports whether whoever uses i can rely on it: there is a relation, and its columns are those of Columns.
func (i *Info) valid() bool {
	return i.Relation != nil && slices.IsSorted(i.Columns) &&
		!slices.ContainsFunc(i.Columns, func(at int) bool { return at < 0 || at >= len(i.Relation.Columns) })
}

// Handle is the handle of the shape's first base.
func (i *Info) Handle() shape.Handle { return shape.Handle{Shape: i.ID} }

// Base says how much a finished base holds.
type Base struct {
	Pages uint32 `json:"pages"`
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"`
}

// Rebase is a later base of a shape, made from an earlier one and the log: a new handle, whose log is the rest of the
// shape's.
type Rebase struct {
	Gen  uint32       `json:"gen"`  // Handle.Base: drawn at random, never 0
	At   shape.Offset `json:"-"`    // the rows are those after this entry
	Made int64        `json:"made"` // by the clock of the ingest that made it, Unix seconds
	Log  uint64       `json:"log"`  // bytes of the entries that it took in, since the base before
	Base
}

// Pack names an object that holds the entries that shapes have in segments First to Last. One of level 1 has the form of
// a segment. A chunk is a pack of a single shape.
type Pack struct {
	Level int      `json:"level"`           // from 1 on
	Shape shape.ID `json:"shape,omitempty"` // of a chunk; else 0
	First uint64   `json:"first"`
	Last  uint64   `json:"last"`
	Sum   uint32   `json:"sum"`   // its checksum: with the segments, the object's identity
	Size  int64    `json:"size"`  // of the object, bytes
	Index int64    `json:"index"` // where the index begins; 0 at level 1
}

// Key is the object's key.
func (p *Pack) Key() string {
	if p.Shape != 0 {
		return fmt.Sprintf("shapes/%s/chunk/%016x-%016x-%08x", p.Shape, p.First, p.Last, p.Sum)
	}
	return fmt.Sprintf("pack/%02d/%016x-%016x-%08x", p.Level, p.First, p.Last, p.Sum)
}

// Extent says that an object holds entries of a shape, from offset First to Last: segment Seq, or Pack if that is not
// nil. A segment may hold entries of the shape outside that range, if a transaction was cut by a crash; they do not
// count.
type Extent struct {
	Seq         uint64
	Pack        *Pack
	First, Last shape.Offset
	Bytes       uint64 // of the entries, as they came
}

// span returns the segments whose entries x stands for.
func (x *Extent) span() (first, last uint64) {
	if x.Pack != nil {
		return x.Pack.First, x.Pack.Last
	}
	return x.Seq, x.Seq
}

// SourceRecord begins the log of another source: it drops all shapes, and LSNs start over.
func SourceRecord(s Source) segment.Record { return record(kindSource, 0, s) }

type openedBody struct {
	*Info
	Base *Base `json:"base,omitempty"`
}

// OpenedRecord adds a shape. base is nil while its pages are still being written.
func OpenedRecord(i *Info, base *Base) segment.Record {
	return record(kindOpened, i.ID, openedBody{i, base})
}

// ReadyRecord completes a shape's base.
func ReadyRecord(id shape.ID, b Base) segment.Record { return record(kindReady, id, b) }

type droppedBody struct {
	Reason *shape.Refusal `json:"reason,omitempty"`
}

// DroppedRecord ends a shape. reason may be nil.
func DroppedRecord(id shape.ID, reason *shape.Refusal) segment.Record {
	return record(kindDropped, id, droppedBody{reason})
}

type packedBody struct {
	Pack
	Chunks []Pack `json:"chunks,omitempty"`
}

// PackedRecord says that p, and for their shapes the chunks, hold what the segments p.First to p.Last and all packs
// within them hold of the shapes that are alive. No transaction may be incomplete at p.Last (see State.Packable), and
// all objects must be stored.
func PackedRecord(p Pack, chunks []Pack) segment.Record {
	return record(kindPacked, 0, packedBody{p, chunks})
}

type offsetBody struct {
	Tx uint64 `json:"tx"`
	Op uint64 `json:"op"`
}

type rebasedBody struct {
	Rebase
	At offsetBody `json:"at"`
}

// RebasedRecord adds a base to a shape; its pages must be stored. Clients that begin from now on begin with it.
func RebasedRecord(id shape.ID, r Rebase) segment.Record {
	return record(kindRebased, id, rebasedBody{r, offsetBody{r.At.Tx, r.At.Op}})
}

// TrimmedRecord ends the retention of a shape's entries up to and including from, which must be where one of its later
// bases begins, and of all bases before that one. Clients behind it start over with the newest.
func TrimmedRecord(id shape.ID, from shape.Offset) segment.Record {
	return record(kindTrimmed, id, offsetBody{from.Tx, from.Op})
}

func record(kind byte, id shape.ID, body any) segment.Record {
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("catalog record %d: %v", kind, err)) // our own types always encode
	}
	return segment.Record{Kind: kind, Shape: id, Body: b}
}
