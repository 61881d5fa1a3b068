package catalog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// ErrRecords means that a frame cannot be applied early, because it holds records: only what a replay of the stream
// reproduces may be seen before it is durable (R4).
var ErrRecords = errors.New("a frame with records is not shown before it is durable")

// undo is what brings the state back to where it was before a segment.
type undo struct {
	seq          uint64 // the segment
	before       uint64 // the one before it
	visible, end pg.LSN
	pending      []pendingPosting
	shapes       map[*opened]before
}

// before is a shape as it was.
type before struct {
	last     shape.Offset
	applied  uint64
	extents  int
	ended    shape.Offset // the last extent's Last
	bytes    uint64       // and its Bytes
	chunks   int
	unclosed uint64
	history  uint64
}

// save keeps o as it is, unless it has changed in this segment already.
func (u *undo) save(o *opened) {
	if _, ok := u.shapes[o]; ok {
		return
	}
	b := before{last: o.last, applied: o.applied, extents: len(o.extents), chunks: len(o.chunks), unclosed: o.unclosed,
		history: o.history}
	if b.extents > 0 {
		b.ended, b.bytes = o.extents[b.extents-1].Last, o.extents[b.extents-1].Bytes
	}
	u.shapes[o] = b
}

// ApplyEarly is Apply for frames of segment m.Seq while that is not durable: Settle follows once it is, or Rollback if
// it never will be. The frames of a segment may come in several calls. The error is ErrRecords, and nothing has
// changed, if a frame holds records; they wait for the segment.
func (s *State) ApplyEarly(m segment.Meta, frames []segment.Frame) (Delta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(frames, func(f segment.Frame) bool { return len(f.Records) > 0 }) {
		return Delta{}, ErrRecords
	}
	if m.Epoch != s.epoch {
		return Delta{}, fmt.Errorf("segment %d is of epoch %d, the state of %d: %w", m.Seq, m.Epoch, s.epoch, errEarly)
	}
	if n := len(s.journal); n == 0 || s.journal[n-1].seq != m.Seq {
		s.journal = append(s.journal, undo{
			seq: m.Seq, before: s.seq, visible: s.visible, end: s.end, pending: s.pending, shapes: make(map[*opened]before),
		})
	}
	return s.apply(m, frames)
}

// Settle says that everything up to and including segment seq is durable.
func (s *State) Settle(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.journal) && s.journal[n].seq <= seq {
		n++
	}
	if s.journal = s.journal[n:]; len(s.journal) == 0 {
		s.journal = nil
	}
}

// Rollback takes back what was applied early and is not settled. It returns the shapes whose logs became shorter.
func (s *State) Rollback() []shape.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var shorter []shape.ID
	for _, u := range slices.Backward(s.journal) {
		for o, b := range u.shapes {
			o.last, o.applied, o.unclosed, o.history = b.last, b.applied, b.unclosed, b.history
			// Plans may hold what lies behind: the next entries get elements of their own.
			o.extents, o.chunks = slices.Clip(o.extents[:b.extents]), slices.Clip(o.chunks[:b.chunks])
			if b.extents > 0 && o.extents[b.extents-1].Last != b.ended {
				o.extents = slices.Clone(o.extents)
				o.extents[b.extents-1].Last, o.extents[b.extents-1].Bytes = b.ended, b.bytes
			}
			shorter = append(shorter, o.info.ID)
		}
		s.seq, s.visible, s.end, s.pending = u.before, u.visible, u.end, slices.Clip(u.pending)
	}
	s.journal = nil
	slices.Sort(shorter)
	return slices.Compact(shorter)
}
