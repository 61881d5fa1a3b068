package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// opened is a shape's changing half. It goes back when early frames are rolled back: see before.
type opened struct {
	info     *Info
	base     *Base    // the first; nil until it is complete
	rebases  []Rebase // later ones that are kept, the newest last
	trimmed  shape.Offset
	last     shape.Offset
	extents  []Extent       // elements are shared with plans, but for the last while applied is the segment of now
	applied  uint64         // the segment whose Apply made the last extent
	chunks   []shape.Offset // ends of the closed chunks of the log
	unclosed uint64         // bytes of entries after the last closed chunk
	history  uint64         // bytes of entries behind the newest base
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
	intern  interner
	pending []pendingPosting // of transactions behind visible, in order
	journal []undo           // of segments that are not durable yet, in order
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
	Rebased []shape.ID // there is a newer base
	Trimmed []shape.ID // the oldest entries and bases are no more
	Grown   []shape.ID // has new entries that may be shown; ascending, each once
	Dropped []Drop
}

// Drop is the end of a shape.
type Drop struct {
	Info   *Info
	Reason *shape.Refusal // why a client that waits for the base gets none; nil if the shape just has to be asked for anew
}

// Apply takes the next segment of the log: its meta and frames, whose bytes it does not keep. What it has seen
// already it drops (R3). What was applied early must be settled or rolled back before. Else an error means a record that
// no writer of this format wrote.
func (s *State) Apply(m segment.Meta, frames []segment.Frame) (Delta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.journal) > 0 {
		return Delta{}, fmt.Errorf("segment %d: %w", m.Seq, errEarly)
	}
	return s.apply(m, frames)
}

func (s *State) apply(m segment.Meta, frames []segment.Frame) (Delta, error) {
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
		info, base, err := s.intern.opened(r.Shape, r.Body)
		if err != nil {
			return fmt.Errorf("opened record of shape %s: %w", r.Shape, err)
		}
		s.shapes[r.Shape] = &opened{info: info, base: base, last: shape.SnapshotEnd}
		d.Opened = append(d.Opened, r.Shape)
		if base != nil {
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
	case kindPacked:
		var body packedBody
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		s.collapse(&body)
	case kindRebased:
		var body rebasedBody
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		body.Rebase.At = shape.At(pg.LSN(body.At.Tx), body.At.Op)
		if o := s.shapes[r.Shape]; o != nil {
			o.rebases = append(slices.Clip(o.rebases), body.Rebase)
			o.history -= min(body.Log, o.history)
			d.Rebased = append(d.Rebased, r.Shape)
		}
	case kindTrimmed:
		var body offsetBody
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		if o := s.shapes[r.Shape]; o != nil {
			o.trim(shape.At(pg.LSN(body.Tx), body.Op))
			d.Trimmed = append(d.Trimmed, r.Shape)
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
		} else if s.add(o, e) {
			d.grown(p.Shape)
		}
	}
}

// release shows the entries of transactions that have become complete. They are those at the front: transactions come
// in the order of their commits.
func (s *State) release(d *Delta) {
	n := 0
	for ; n < len(s.pending) && s.pending[n].offset.Tx <= uint64(s.visible); n++ {
		e := s.pending[n]
		if o := s.shapes[e.id]; o != nil && s.add(o, e) {
			d.grown(e.id)
		}
	}
	if s.pending = s.pending[n:]; len(s.pending) == 0 {
		s.pending = nil
	}
}

func (d *Delta) grown(id shape.ID) {
	if n := len(d.Grown); n == 0 || d.Grown[n-1] != id {
		d.Grown = append(d.Grown, id)
	}
}

// add shows an entry of o, unless it has been there already.
func (s *State) add(o *opened, e pendingPosting) bool {
	if e.offset.Compare(o.last) <= 0 {
		return false
	}
	if len(s.journal) > 0 {
		s.journal[len(s.journal)-1].save(o)
	}
	o.last = e.offset
	if n := len(o.extents); n > 0 && o.extents[n-1].Pack == nil && o.extents[n-1].Seq == e.seq && o.applied == s.seq {
		o.extents[n-1].Last = e.offset
		o.extents[n-1].Bytes += uint64(e.bytes)
	} else {
		o.extents = append(o.extents, Extent{Seq: e.seq, First: e.offset, Last: e.offset, Bytes: uint64(e.bytes)})
		o.applied = s.seq
	}
	o.unclosed += uint64(e.bytes)
	o.history += uint64(e.bytes)
	if e.chunkEnd {
		o.chunks = append(o.chunks, e.offset)
		o.unclosed = 0
	}
	return true
}

// collapse replaces, in each shape, the extents that lie within a pack by one.
func (s *State) collapse(body *packedBody) {
	pack := &body.Pack
	chunks := make(map[shape.ID]*Pack, len(body.Chunks))
	for i := range body.Chunks {
		chunks[body.Chunks[i].Shape] = &body.Chunks[i]
	}
	for id, o := range s.shapes {
		from := slices.IndexFunc(o.extents, func(x Extent) bool { first, _ := x.span(); return first >= pack.First })
		if from < 0 {
			continue
		}
		to := from
		for to < len(o.extents) {
			if _, last := o.extents[to].span(); last > pack.Last {
				break
			}
			to++
		}
		if from == to {
			continue
		}
		in := pack
		if c := chunks[id]; c != nil {
			in = c
		}
		one := Extent{Pack: in, First: o.extents[from].First, Last: o.extents[to-1].Last}
		for _, x := range o.extents[from:to] {
			one.Bytes += x.Bytes
		}
		extents := make([]Extent, 0, len(o.extents)-(to-from)+1)
		extents = append(append(extents, o.extents[:from]...), one)
		o.extents = append(extents, o.extents[to:]...)
	}
}

// trim forgets what lies at or before from.
func (o *opened) trim(from shape.Offset) {
	if from.Compare(o.trimmed) <= 0 || from.Compare(o.last) > 0 {
		return
	}
	o.trimmed = from
	o.rebases = slices.DeleteFunc(slices.Clone(o.rebases), func(r Rebase) bool { return r.At.Compare(from) < 0 })
	gone := func(end shape.Offset) bool { return end.Compare(from) <= 0 }
	o.chunks = slices.DeleteFunc(slices.Clone(o.chunks), gone)
	o.extents = slices.DeleteFunc(slices.Clone(o.extents), func(x Extent) bool { return gone(x.Last) })
}

// errEarly is the error of a segment applied over frames that may not be durable.
var errEarly = errors.New("frames that were applied early are neither settled nor rolled back")
