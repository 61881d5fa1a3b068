package compact

import (
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// packer gathers, from segments in their order, the entries that the catalogue counts: those of shapes that are alive,
// each once. Messages stay shared, as they are in frames; those that nobody refers to any more are left out.
type packer struct {
	shapes  map[shape.ID]*stretch
	wanted  map[uint64]bool // segments that hold entries
	builder segment.Builder
	frames  int

	numbers []int // of a frame's messages in the frame being built; -1 if not there
	frame   segment.Frame
	refs    []segment.Ref // of all postings of the frame
}

type stretch struct {
	extents []catalog.Extent // from the segment being taken on; ascending
	last    shape.Offset     // of the entries taken
}

// newPacker returns a packer of what shapes have in segments; none of it may be in packs already.
func newPacker(stretches []catalog.Stretch) *packer {
	p := &packer{shapes: make(map[shape.ID]*stretch, len(stretches)), wanted: make(map[uint64]bool)}
	for _, s := range stretches {
		p.shapes[s.ID] = &stretch{extents: s.Extents, last: shape.Before}
		for _, x := range s.Extents {
			p.wanted[x.Seq] = true
		}
	}
	return p
}

// wants reports whether segment seq holds anything to take.
func (p *packer) wants(seq uint64) bool { return p.wanted[seq] }

// bytes is how much has been gathered.
func (p *packer) bytes() int { return p.builder.Len() }

// add takes the entries of s that count.
func (p *packer) add(s *segment.Segment) {
	for i := range s.Frames {
		p.addFrame(s.Seq, &s.Frames[i])
	}
}

func (p *packer) addFrame(seq uint64, f *segment.Frame) {
	out := &p.frame
	*out = segment.Frame{Visible: f.Visible, End: f.End, Messages: out.Messages[:0], Postings: out.Postings[:0]}
	p.refs, p.numbers = p.refs[:0], p.numbers[:0]
	total := 0
	for i := range f.Postings {
		total += len(f.Postings[i].Refs)
	}
	if cap(p.refs) < total {
		p.refs = make([]segment.Ref, 0, total) // postings are views of it, so it must not move
	}
	for range f.Messages {
		p.numbers = append(p.numbers, -1)
	}
	for i := range f.Postings {
		posting := &f.Postings[i]
		st := p.shapes[posting.Shape]
		if st == nil {
			continue
		}
		from := len(p.refs)
		for _, r := range posting.Refs {
			m := &f.Messages[r.Message()]
			if !st.counts(seq, m.Offset) {
				continue
			}
			n := p.numbers[r.Message()]
			if n < 0 {
				n = len(out.Messages)
				p.numbers[r.Message()] = n
				out.Messages = append(out.Messages, *m)
			}
			p.refs = append(p.refs, segment.NewRef(n, r&(segment.RefLast|segment.RefChunkEnd)))
			st.last = m.Offset
		}
		if len(p.refs) > from {
			out.Postings = append(out.Postings, segment.Posting{Shape: posting.Shape, Refs: p.refs[from:len(p.refs):len(p.refs)]})
		}
	}
	if len(out.Postings) > 0 {
		p.builder.Add(out)
		p.frames++
	}
}

// counts reports whether the catalogue counts the shape's entry at o in segment seq, and it has not been taken.
func (s *stretch) counts(seq uint64, o shape.Offset) bool {
	if o.Compare(s.last) <= 0 {
		return false
	}
	for len(s.extents) > 0 && s.extents[0].Seq < seq {
		s.extents = s.extents[1:]
	}
	for i := range s.extents {
		x := &s.extents[i]
		if x.Seq > seq {
			return false
		}
		if o.Compare(x.First) >= 0 && o.Compare(x.Last) <= 0 {
			return true
		}
	}
	return false
}

// seal returns the pack, nil if it holds nothing.
func (p *packer) seal(m segment.Meta) ([]byte, segment.Meta) {
	if p.frames == 0 {
		return nil, m
	}
	return p.builder.Seal(m)
}
