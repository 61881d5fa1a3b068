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
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

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
)

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

// Handle is the handle that the shape's clients have.
func (i *Info) Handle() shape.Handle { return shape.Handle{Shape: i.ID} }

// Base says how much a finished base holds.
type Base struct {
	Pages uint32 `json:"pages"`
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"`
}

// Extent says that a segment holds entries of a shape, from offset First to Last. Entries of the shape outside that
// range are in the segment too if a transaction was cut by a crash; they do not count.
type Extent struct {
	Seq         uint64
	First, Last shape.Offset
}

// opened is a shape's changing half.
type opened struct {
	info     *Info
	base     *Base // nil until the base is complete
	last     shape.Offset
	extents  []Extent
	applied  uint64         // the segment whose Apply made the last extent; older extents are shared with plans
	chunks   []shape.Offset // ends of the closed chunks of the log
	unclosed uint64         // bytes of entries after the last closed chunk
}

// State is the fold. One goroutine applies, any number read.
type State struct {
	mu      sync.RWMutex
	seq     uint64
	epoch   uint64
	visible pg.LSN
	end     pg.LSN
	source  Source
	shapes  map[shape.ID]*opened
	pending []pendingPosting // of transactions behind visible, in order
}

type pendingPosting struct {
	id       shape.ID
	seq      uint64
	offset   shape.Offset
	bytes    int
	chunkEnd bool
}

// New returns the state before the first segment.
func New() *State { return &State{shapes: make(map[shape.ID]*opened)} }

// Delta is what a segment changed.
type Delta struct {
	Opened  []shape.ID // in log order
	Ready   []shape.ID // the base is complete
	Grown   []shape.ID // has new entries that may be shown; ascending, each once
	Dropped []Drop
}

// Drop is the end of a shape.
type Drop struct {
	Info   *Info
	Reason *shape.Refusal // why a client that waits for the base gets none; nil if the shape just has to be asked for anew
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

func record(kind byte, id shape.ID, body any) segment.Record {
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("catalog record %d: %v", kind, err)) // our own types always encode
	}
	return segment.Record{Kind: kind, Shape: id, Body: b}
}

// Apply takes the next segment of the log: its meta and frames, whose bytes it does not keep. What it has seen
// already it drops (R3). An error means a record that no writer of this format wrote.
func (s *State) Apply(m segment.Meta, frames []segment.Frame) (Delta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d Delta
	if m.Epoch > s.epoch {
		s.epoch, s.pending = m.Epoch, nil // a transaction cut by a crash comes again whole
	}
	s.seq = m.Seq
	for i := range frames {
		f := &frames[i]
		for j := range f.Records {
			if err := s.record(&f.Records[j], &d); err != nil {
				return d, fmt.Errorf("segment %d: frame %d: record %d: %w", m.Seq, i, j, err)
			}
		}
		if f.Visible >= s.visible {
			s.visible, s.end = f.Visible, max(s.end, f.End)
		}
		s.release(&d)
		for j := range f.Postings {
			s.posting(m.Seq, f, &f.Postings[j], &d)
		}
	}
	slices.Sort(d.Grown)
	d.Grown = slices.Compact(d.Grown)
	return d, nil
}

func (s *State) record(r *segment.Record, d *Delta) error {
	switch r.Kind {
	case kindSource:
		var src Source
		if err := json.Unmarshal(r.Body, &src); err != nil {
			return err
		}
		for _, o := range s.shapes {
			d.Dropped = append(d.Dropped, Drop{Info: o.info})
		}
		clear(s.shapes)
		s.source, s.visible, s.end, s.pending = src, 0, 0, nil
	case kindOpened:
		body := openedBody{Info: &Info{}}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		if !body.valid() {
			return fmt.Errorf("opened record of shape %s: %w", r.Shape, segment.ErrCorrupt)
		}
		body.ID = r.Shape
		s.shapes[r.Shape] = &opened{info: body.Info, base: body.Base, last: shape.SnapshotEnd}
		d.Opened = append(d.Opened, r.Shape)
		if body.Base != nil {
			d.Ready = append(d.Ready, r.Shape)
		}
	case kindReady:
		b := &Base{}
		if err := json.Unmarshal(r.Body, b); err != nil {
			return err
		}
		if o := s.shapes[r.Shape]; o != nil {
			o.base = b
			d.Ready = append(d.Ready, r.Shape)
		}
	case kindDropped:
		var body droppedBody
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		if o := s.shapes[r.Shape]; o != nil {
			delete(s.shapes, r.Shape)
			d.Dropped = append(d.Dropped, Drop{o.info, body.Reason})
		}
	default:
		return fmt.Errorf("kind %d: %w", r.Kind, segment.ErrVersion)
	}
	return nil
}

func (s *State) posting(seq uint64, f *segment.Frame, p *segment.Posting, d *Delta) {
	o := s.shapes[p.Shape]
	if o == nil {
		return
	}
	for _, r := range p.Refs {
		m := &f.Messages[r.Message()]
		e := pendingPosting{p.Shape, seq, m.Offset, len(m.Body), r.ChunkEnd()}
		if m.Offset.Tx > uint64(s.visible) {
			s.pending = append(s.pending, e)
		} else if o.add(e, s.seq) {
			d.grown(p.Shape)
		}
	}
}

// release shows the entries of transactions that have become complete.
func (s *State) release(d *Delta) {
	n := 0
	for _, e := range s.pending {
		if e.offset.Tx > uint64(s.visible) {
			s.pending[n] = e
			n++
		} else if o := s.shapes[e.id]; o != nil && o.add(e, s.seq) {
			d.grown(e.id)
		}
	}
	s.pending = s.pending[:n]
}

func (d *Delta) grown(id shape.ID) {
	if n := len(d.Grown); n == 0 || d.Grown[n-1] != id {
		d.Grown = append(d.Grown, id)
	}
}

func (o *opened) add(e pendingPosting, applying uint64) bool {
	if e.offset.Compare(o.last) <= 0 {
		return false
	}
	o.last = e.offset
	if n := len(o.extents); n > 0 && o.extents[n-1].Seq == e.seq && o.applied == applying {
		o.extents[n-1].Last = e.offset
	} else {
		o.extents = append(o.extents, Extent{e.seq, e.offset, e.offset})
		o.applied = applying
	}
	o.unclosed += uint64(e.bytes)
	if e.chunkEnd {
		o.chunks = append(o.chunks, e.offset)
		o.unclosed = 0
	}
	return true
}

// Position tells how far the state is: the last segment applied and its epoch, the LSN up to which transactions
// are complete, and where the stream goes on after them.
func (s *State) Position() (seq, epoch uint64, visible, end pg.LSN) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seq, s.epoch, s.visible, s.end
}

// Source returns the source of the log; zero before the first segment.
func (s *State) Source() Source {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.source
}

// Plan says what answers a request for the entries of a shape after an offset. All of it is of one moment.
type Plan struct {
	Info    *Info
	Base    *Base        // nil while pages are still being written
	Last    shape.Offset // of the shape's log
	End     shape.Offset // where the answer ends: the end of the chunk that follows, or Last
	Closed  bool         // End is the end of a closed chunk: the answer will always be the same
	Extents []Extent     // where the entries in (after, End] lie; shared: read only
	Visible pg.LSN
}

// Plan returns the plan for the entries of the shape behind after, or false if there is no such shape.
func (s *State) Plan(id shape.ID, after shape.Offset) (Plan, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.shapes[id]
	if o == nil {
		return Plan{Visible: s.visible}, false
	}
	p := Plan{Info: o.info, Base: o.base, Last: o.last, End: o.last, Visible: s.visible}
	behind := func(end, after shape.Offset) int {
		if end.Compare(after) > 0 {
			return 1
		}
		return -1
	}
	if i, _ := slices.BinarySearchFunc(o.chunks, after, behind); i < len(o.chunks) {
		p.End, p.Closed = o.chunks[i], true
	}
	from, _ := slices.BinarySearchFunc(o.extents, after, func(e Extent, a shape.Offset) int { return behind(e.Last, a) })
	to, _ := slices.BinarySearchFunc(o.extents, p.End, func(e Extent, a shape.Offset) int { return behind(e.First, a) })
	if from < to {
		p.Extents = o.extents[from:to:to]
	}
	return p, true
}

// Shape is a shape as ingest takes it up again after a restart.
type Shape struct {
	*Info
	Base     *Base
	Last     shape.Offset
	Unclosed uint64 // bytes of entries after the last closed chunk
}

// Shapes returns all shapes, in the order of their IDs.
func (s *State) Shapes() []Shape {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Shape, 0, len(s.shapes))
	for _, o := range s.shapes {
		all = append(all, Shape{o.info, o.base, o.last, o.unclosed})
	}
	slices.SortFunc(all, func(a, b Shape) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
