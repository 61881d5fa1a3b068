package body

import (
	"sync"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// settledMax bounds the bytes of frames that came by the feed and stay at hand once their segments are durable.
const settledMax = 32 << 20

// live is the segments whose frames came by the feed, in their order. What is not durable cannot be read from anywhere
// else.
type live struct {
	mu       sync.RWMutex
	segments map[uint64]*liveSegment
	settled  []uint64 // those that are durable, the oldest first
	bytes    int      // of the settled ones
}

// liveSegment is a segment that may still grow. Readers see the frames that were there when they asked.
type liveSegment struct {
	mu       sync.RWMutex
	frames   []segment.Frame
	postings map[shape.ID][]livePosting // in log order
	bytes    int
}

type livePosting struct{ frame, posting int }

// Live takes in a frame of a segment that is not durable yet.
func (s *Source) Live(seq uint64, f *segment.Frame) {
	l := &s.live
	l.mu.Lock()
	seg := l.segments[seq]
	if seg == nil {
		if l.segments == nil {
			l.segments = make(map[uint64]*liveSegment)
		}
		seg = &liveSegment{postings: make(map[shape.ID][]livePosting)}
		l.segments[seq] = seg
	}
	l.mu.Unlock()
	seg.add(f)
}

func (s *liveSegment) add(f *segment.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, *f)
	for i := range f.Postings {
		id := f.Postings[i].Shape
		s.postings[id] = append(s.postings[id], livePosting{len(s.frames) - 1, i})
	}
	for i := range f.Messages {
		s.bytes += len(f.Messages[i].Body)
	}
}

// Of calls yield for each message of the shape, in log order, until it returns false.
func (s *liveSegment) Of(id shape.ID, yield func(m *segment.Message, r segment.Ref) bool) {
	s.mu.RLock()
	frames, postings := s.frames, s.postings[id]
	s.mu.RUnlock()
	for _, p := range postings {
		f := &frames[p.frame]
		for _, r := range f.Postings[p.posting].Refs {
			if !yield(&f.Messages[r.Message()], r) {
				return
			}
		}
	}
}

// get returns the segment that x lies in, if it came by the feed.
func (l *live) get(x *catalog.Extent) holder {
	if x.Pack != nil {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if seg := l.segments[x.Seq]; seg != nil {
		return seg
	}
	return nil
}

// Settle says that segment seq is durable: of what Live brought there is nothing more to come, and it stays as long as
// there is room.
func (s *Source) Settle(seq uint64) {
	l := &s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	seg := l.segments[seq]
	if seg == nil {
		return
	}
	l.settled = append(l.settled, seq)
	l.bytes += seg.bytes
	for l.bytes > settledMax {
		l.bytes -= l.segments[l.settled[0]].bytes
		delete(l.segments, l.settled[0])
		l.settled = l.settled[1:]
	}
}

// Void says that what Live brought and is not settled may never become durable.
func (s *Source) Void() {
	l := &s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) == len(l.settled) {
		return
	}
	kept := make(map[uint64]*liveSegment, len(l.settled))
	for _, seq := range l.settled {
		kept[seq] = l.segments[seq]
	}
	l.segments = kept
}
