package body

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shapeline/shapeline/internal/shape"
)

const (
	// fillTimeout bounds the making of a body, whose waiters may all have left.
	fillTimeout = 30 * time.Second

	// fillsMax bounds the bodies in the making, and with them the segments held outside their cache.
	fillsMax = 16

	// bodyOverhead is what an entry of the shelf costs beside its bytes.
	bodyOverhead = 512
)

// Key names a part of an answer that never changes: a page of a base, or a stretch of a shape's log (R5).
type Key struct {
	Handle     shape.Handle
	Page       uint32
	IsPage     bool
	After, End shape.Offset // entries in (After, End]; zero for pages
	SSE        bool         // as SSE frames
}

// Shared is such a part, made once for all who want it at the same time.
type Shared struct {
	key     Key
	claimed atomic.Bool
	ready   chan struct{} // closed once data and err are set
	data    []byte        // read only
	err     error

	// Guarded by the shelf's mu.
	refs int
	idle *list.Element // in the shelf's idle list, while nobody holds it
}

// Shelf holds the bodies in use, and as many others as fit beside them: bytesMax bounds both together. A body that
// does not fit beside those in use is refused, so that slow readers cannot exhaust the memory.
type Shelf struct {
	bytesMax int64
	slots    chan struct{} // one for each body in the making
	fills    atomic.Int64  // bodies made so far

	mu     sync.Mutex
	bodies map[Key]*Shared
	idle   *list.List // of *Shared, the longest unused first
	bytes  int64      // of all finished bodies
}

// NewShelf returns an empty shelf for bytesMax of bodies.
func NewShelf(bytesMax int64) *Shelf {
	return &Shelf{
		bytesMax: bytesMax, slots: make(chan struct{}, fillsMax), bodies: make(map[Key]*Shared), idle: list.New(),
	}
}

// ErrFull means that a body has no room beside those in use.
var ErrFull = errors.New("too many large bodies are in use")

// Take returns the body of key on behalf of n holders, each of which must give it back.
func (s *Shelf) Take(key Key, n int) *Shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bodies[key]
	if b == nil {
		b = &Shared{key: key, ready: make(chan struct{})}
		s.bodies[key] = b
	}
	if b.idle != nil {
		s.idle.Remove(b.idle)
		b.idle = nil
	}
	b.refs += n
	return b
}

// Give ends a hold on b.
func (s *Shelf) Give(b *Shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.refs--
	if b.refs > 0 {
		return
	}
	if !b.claimed.Load() || b.err != nil {
		s.forget(b)
		return
	}
	b.idle = s.idle.PushBack(b)
}

// forget takes b off the shelf; mu is held.
func (s *Shelf) forget(b *Shared) {
	if s.bodies[b.key] == b {
		delete(s.bodies, b.key)
	}
}

// Fill makes b's data by render unless somebody has, and waits for it. The first caller makes it for all, so
// render gets a context that outlives the caller's.
func (s *Shelf) Fill(ctx context.Context, b *Shared, render func(context.Context) ([]byte, error)) ([]byte, error) {
	if b.claimed.CompareAndSwap(false, true) {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), fillTimeout)
		defer cancel()
		s.run(long, b, render)
	}
	select {
	case <-b.ready:
		return b.data, b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Shelf) run(ctx context.Context, b *Shared, render func(context.Context) ([]byte, error)) {
	defer close(b.ready)
	b.err = context.DeadlineExceeded // stands if render panics, too
	defer func() {
		if b.err != nil {
			s.mu.Lock()
			s.forget(b)
			s.mu.Unlock()
		}
	}()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return
	}
	s.fills.Add(1)
	data, err := render(ctx)
	if err == nil && !s.fits(int64(len(data))+bodyOverhead) {
		err = ErrFull
	}
	b.data, b.err = data, err
}

// fits makes room for a body of n bytes and counts it.
func (s *Shelf) fits(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes+n > s.bytesMax {
		e := s.idle.Front()
		if e == nil {
			return false
		}
		old := e.Value.(*Shared)
		s.idle.Remove(e)
		s.forget(old)
		s.bytes -= int64(len(old.data)) + bodyOverhead
	}
	s.bytes += n
	return true
}

// Fills returns how many bodies have been made.
func (s *Shelf) Fills() int64 { return s.fills.Load() }

// InUse returns how many bodies somebody holds.
func (s *Shelf) InUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies) - s.idle.Len()
}
