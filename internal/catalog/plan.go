package catalog

import (
	"cmp"
	"slices"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

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
	Handle  shape.Handle // that the plan is for
	Newest  shape.Handle // that clients begin with now
	Base    *Base        // of Handle; nil while pages are still being written, or if Behind
	Behind  bool         // After, or Handle's base, is no longer kept: the client starts over with Newest
	After   shape.Offset // where the answer begins: in the log
	Last    shape.Offset // of the shape's log
	End     shape.Offset // where the answer ends: the end of the chunk that follows, or Last
	Closed  bool         // End is the end of a closed chunk: the answer will always be the same
	Extents []Extent     // where the entries in (After, End] lie; shared: read only
	Visible pg.LSN
}

// Plan returns the plan for the entries that a client of h gets behind after; false if there is no such shape.
func (s *State) Plan(h shape.Handle, after shape.Offset) (Plan, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.shapes[h.Shape]
	if o == nil {
		return Plan{Visible: s.visible}, false
	}
	p := Plan{Info: o.info, Handle: h, Newest: o.newest(), After: after, Last: o.last, End: o.last, Visible: s.visible}
	base, begins, ok := o.baseOf(h.Base)
	p.Base = base
	if after.IsBefore() || after.InSnapshot() {
		p.After, p.Behind = begins, !ok
	} else {
		p.Behind = after.Compare(o.trimmed) < 0
	}
	if p.Behind {
		return p, true
	}
	after = p.After
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
		if to == len(o.extents) && o.applied == s.seq { // the last one may still grow
			p.Extents = slices.Clone(p.Extents)
		}
	}
	return p, true
}

// baseOf returns base gen and where the log behind it begins; false if it is not, or no longer, there.
func (o *opened) baseOf(gen uint32) (b *Base, begins shape.Offset, ok bool) {
	if gen == 0 {
		return o.base, shape.SnapshotEnd, o.trimmed.IsBefore()
	}
	for i := range o.rebases {
		if r := &o.rebases[i]; r.Gen == gen {
			return &r.Base, r.At, true
		}
	}
	return nil, o.last, false
}

// newest returns the handle that clients begin with.
func (o *opened) newest() shape.Handle {
	h := o.info.Handle()
	if n := len(o.rebases); n > 0 {
		h.Base = o.rebases[n-1].Gen
	}
	return h
}

// Packable returns the last segment that a pack may end with: all that lies up to there belongs to complete
// transactions.
func (s *State) Packable() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.pending) > 0 {
		return s.pending[0].seq - 1
	}
	return s.seq
}

// Floor returns the first segment that the state refers to; what lies below it is in packs, or concerns nobody.
func (s *State) Floor() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	floor := s.seq + 1
	if len(s.pending) > 0 {
		floor = min(floor, s.pending[0].seq)
	}
	for _, o := range s.shapes {
		if i := slices.IndexFunc(o.extents, func(x Extent) bool { return x.Pack == nil }); i >= 0 {
			floor = min(floor, o.extents[i].Seq)
		}
	}
	return floor
}

// Loose returns the bytes of entries that the shape which has most of them has in segments rather than packs.
func (s *State) Loose() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var most uint64
	for _, o := range s.shapes {
		var bytes uint64
		for i := len(o.extents) - 1; i >= 0 && o.extents[i].Pack == nil; i-- {
			bytes += o.extents[i].Bytes
		}
		most = max(most, bytes)
	}
	return most
}

// Stretch is what a shape has in a run of segments.
type Stretch struct {
	ID      shape.ID
	Extents []Extent       // shared: read only
	Chunks  []shape.Offset // ends of closed chunks in it
}

// Stretches returns what the shapes have in segments first to last, and in packs within them, in the order of their
// IDs.
func (s *State) Stretches(first, last uint64) []Stretch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []Stretch
	for id, o := range s.shapes {
		st := Stretch{ID: id}
		for i := range o.extents {
			if f, l := o.extents[i].span(); f >= first && l <= last {
				st.Extents = append(st.Extents, o.extents[i])
			}
		}
		if len(st.Extents) == 0 {
			continue
		}
		from, to := st.Extents[0].First, st.Extents[len(st.Extents)-1].Last
		for _, end := range o.chunks {
			if end.Compare(from) >= 0 && end.Compare(to) <= 0 {
				st.Chunks = append(st.Chunks, end)
			}
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Stretch) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Extents returns where all entries of a shape's log lie.
func (s *State) Extents(id shape.ID) []Extent {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.shapes[id]; o != nil {
		return slices.Clone(o.extents)
	}
	return nil
}

// Packs returns the packs and chunks that the state refers to, by their first segments.
func (s *State) Packs() []*Pack {
	s.mu.RLock()
	defer s.mu.RUnlock()
	seen := make(map[*Pack]bool)
	var all []*Pack
	for _, o := range s.shapes {
		for i := range o.extents {
			if p := o.extents[i].Pack; p != nil && !seen[p] {
				seen[p] = true
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Pack) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last), cmp.Compare(a.Shape, b.Shape))
	})
	return all
}

// Shape is a shape as ingest takes it up again after a restart, and as retention looks at it.
type Shape struct {
	*Info
	Base     *Base    // the first; nil while its pages are being written
	Rebases  []Rebase // later ones that are kept, the newest last; shared: read only
	Trimmed  shape.Offset
	Last     shape.Offset
	Unclosed uint64 // bytes of entries after the last closed chunk
}

// Newest is the handle that clients begin with.
func (s *Shape) Newest() shape.Handle {
	h := s.Handle()
	if n := len(s.Rebases); n > 0 {
		h.Base = s.Rebases[n-1].Gen
	}
	return h
}

// NewestBase is the one of Newest; nil while the first is being written.
func (s *Shape) NewestBase() *Base {
	if n := len(s.Rebases); n > 0 {
		return &s.Rebases[n-1].Base
	}
	return s.Base
}

// History is what a shape has behind its newest base, as far as that lies in packs: a new base can begin behind it.
type History struct {
	Shape
	Packed []Extent // ascending; shared: read only
	Bytes  uint64   // of the entries in Packed
}

// Histories returns the shapes that have at least so many bytes in packs behind their newest base, which is complete;
// the most first.
func (s *State) Histories(least uint64) []History {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []History
	for _, o := range s.shapes {
		if o.history < max(least, 1) || o.base == nil {
			continue
		}
		begins, bytes := shape.SnapshotEnd, o.history
		if n := len(o.rebases); n > 0 {
			begins = o.rebases[n-1].At
		}
		from, to := 0, len(o.extents)
		for to > 0 && o.extents[to-1].Pack == nil {
			to--
			bytes -= min(bytes, o.extents[to].Bytes)
		}
		for from < to && o.extents[from].Last.Compare(begins) <= 0 {
			from++
		}
		if from < to && bytes >= least {
			all = append(all, History{o.shape(), o.extents[from:to:to], bytes})
		}
	}
	slices.SortFunc(all, func(a, b History) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Shapes returns all shapes, in the order of their IDs.
func (s *State) Shapes() []Shape {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Shape, 0, len(s.shapes))
	for _, o := range s.shapes {
		all = append(all, o.shape())
	}
	slices.SortFunc(all, func(a, b Shape) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Shape returns one shape, or false.
func (s *State) Shape(id shape.ID) (Shape, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.shapes[id]
	if o == nil {
		return Shape{}, false
	}
	return o.shape(), true
}

func (o *opened) shape() Shape {
	return Shape{o.info, o.base, o.rebases, o.trimmed, o.last, o.unclosed}
}
