// Package feed carries the log from ingest to serve before it is in the bucket: frames as the pipeline makes them, and
// word of which segments are durable. It owns the hub that ingest publishes to, the bytes on the way (FORMAT.md), and
// both ends of the HTTP connection, over which serve also asks ingest for shapes.
//
// It keeps no history: who comes, or was too slow, begins with the next segment and finds everything before that in the
// bucket. What may be shown before it is durable is the subscriber's to judge (design, R4); losing the feed costs time
// and never anything else (R6).
package feed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/segment"
)

// Kind is what an Event says.
type Kind byte

// The kinds of events, as their first bytes.
const (
	Hello   Kind = 'H' // the subscription begins with segment Seq of the writer of Epoch; what is before is in the bucket
	Frame   Kind = 'F' // the next frame of segment Seq
	Durable Kind = 'D' // segment Seq is in the bucket: all of its frames have come
	Beat    Kind = 'B' // nothing happened
)

// Event is one thing that a subscriber is told.
type Event struct {
	Kind  Kind
	Seq   uint64
	Epoch uint64 // of a Hello
	Frame []byte // of a Frame: as segments have it; read only
}

const (
	// queueBytesMax bounds what waits for one subscriber. Who is slower than that is dropped.
	queueBytesMax = 32 << 20

	// frameBytesMax bounds a frame on the feed. A larger one ends the subscriptions: it comes by the bucket.
	frameBytesMax = 16 << 20

	frameHeaderBytes = 8 // of a frame, see internal/segment/FORMAT.md: length and checksum of the payload
)

// Errors of a subscription.
var (
	ErrSlow  = errors.New("the subscriber was too slow for the feed")
	ErrEnded = errors.New("the feed's writer has ended its term")
	ErrNone  = errors.New("ingest does not write at the moment")
)

// AppendEvent appends the bytes of e.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = append(dst, byte(e.Kind))
	switch e.Kind {
	case Hello:
		dst = binary.LittleEndian.AppendUint64(dst, e.Seq)
		dst = binary.LittleEndian.AppendUint64(dst, e.Epoch)
	case Frame:
		dst = binary.LittleEndian.AppendUint64(dst, e.Seq)
		dst = append(dst, e.Frame...)
	case Durable:
		dst = binary.LittleEndian.AppendUint64(dst, e.Seq)
	}
	return dst
}

// ReadEvent reads the next event. A frame's checksum is the decoder's to look at.
func ReadEvent(r io.Reader) (Event, error) {
	var head [17]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return Event{}, err
	}
	e := Event{Kind: Kind(head[0])}
	size := map[Kind]int{Hello: 16, Frame: 8 + frameHeaderBytes, Durable: 8}[e.Kind]
	if size == 0 && e.Kind != Beat {
		return Event{}, fmt.Errorf("feed: event %#x: %w", head[0], segment.ErrVersion)
	}
	if _, err := io.ReadFull(r, head[1:1+size]); err != nil {
		return Event{}, noEOF(err)
	}
	if e.Kind != Beat {
		e.Seq = binary.LittleEndian.Uint64(head[1:])
	}
	switch e.Kind {
	case Hello:
		e.Epoch = binary.LittleEndian.Uint64(head[9:])
	case Frame:
		n := binary.LittleEndian.Uint32(head[9:])
		if n > frameBytesMax {
			return Event{}, fmt.Errorf("feed: frame of %d bytes: %w", n, segment.ErrCorrupt)
		}
		e.Frame = make([]byte, frameHeaderBytes+int(n))
		copy(e.Frame, head[9:])
		if _, err := io.ReadFull(r, e.Frame[frameHeaderBytes:]); err != nil {
			return Event{}, noEOF(err)
		}
	}
	return e, nil
}

// noEOF is the error for an end in the middle.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Hub hands what one ingest makes to its subscribers. The zero Hub is ready, and has no term: publishing costs nothing
// while nobody has subscribed.
type Hub struct {
	mu     sync.Mutex
	active bool
	epoch  uint64
	next   uint64 // the segment that the next frame is of
	begun  bool   // next has a frame already
	subs   map[*Subscription]struct{}
}

// Begin starts the term of a writer, whose first segment will be next.
func (h *Hub) Begin(epoch, next uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active, h.epoch, h.next, h.begun = true, epoch, next, false
}

// End ends the term, and all subscriptions.
func (h *Hub) End() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active = false
	for s := range h.subs {
		h.drop(s, ErrEnded)
	}
}

// drop ends a subscription; mu is held.
func (h *Hub) drop(s *Subscription, why error) {
	delete(h.subs, s)
	s.end(why)
}

// Publish hands on a frame of segment seq. It does not keep the bytes, which it copies if somebody wants them.
func (h *Hub) Publish(seq uint64, frame []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq != h.next || !h.begun {
		h.next, h.begun = seq, true
	}
	if len(h.subs) == 0 {
		return
	}
	e := Event{Kind: Frame, Seq: seq}
	if len(frame) <= frameBytesMax {
		e.Frame = append([]byte(nil), frame...)
	}
	for s := range h.subs {
		if seq < s.first {
			continue
		}
		if e.Frame == nil || !s.push(e) {
			h.drop(s, ErrSlow)
		}
	}
}

// Durable says that segment seq is in the bucket.
func (h *Hub) Durable(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs { // what comes just before the first is waited for
		if seq+1 >= s.first && !s.push(Event{Kind: Durable, Seq: seq}) {
			h.drop(s, ErrSlow)
		}
	}
}

// Active reports whether there is a term.
func (h *Hub) Active() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.active
}

// Subscribers is how many there are.
func (h *Hub) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

// Subscribe begins a subscription, of which the first event is a Hello. The caller closes it.
func (h *Hub) Subscribe(context.Context) (Stream, error) { return h.subscribe() }

func (h *Hub) subscribe() (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.active {
		return nil, ErrNone
	}
	s := &Subscription{hub: h, first: h.next, ready: make(chan struct{}, 1)}
	if h.begun { // frames of it have gone by
		s.first++
	}
	if h.subs == nil {
		h.subs = make(map[*Subscription]struct{})
	}
	h.subs[s] = struct{}{}
	s.push(Event{Kind: Hello, Seq: s.first, Epoch: h.epoch})
	return s, nil
}

// Stream is a subscription as its reader sees it.
type Stream interface {
	// Next returns the next event. After an error the stream is over.
	Next(ctx context.Context) (Event, error)
	Close()
}

// Subscription is one subscriber's queue. Next is for one goroutine.
type Subscription struct {
	hub   *Hub
	first uint64 // segment
	ready chan struct{}

	mu    sync.Mutex
	queue []Event
	bytes int
	err   error
}

// push reports whether there was room.
func (s *Subscription) push(e Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+len(e.Frame) > queueBytesMax {
		return false
	}
	s.queue = append(s.queue, e)
	s.bytes += len(e.Frame)
	s.signal()
	return true
}

func (s *Subscription) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *Subscription) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.queue = why, nil
	s.signal()
}

// take returns what there is.
func (s *Subscription) take() ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue, s.bytes = nil, 0
	return q, s.err
}

// Next implements Stream.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	beat := time.NewTimer(beatEvery)
	defer beat.Stop()
	for {
		s.mu.Lock()
		if s.err != nil {
			defer s.mu.Unlock()
			return Event{}, s.err
		}
		if len(s.queue) > 0 {
			defer s.mu.Unlock()
			e := s.queue[0]
			s.queue = s.queue[1:]
			s.bytes -= len(e.Frame)
			return e, nil
		}
		s.mu.Unlock()
		select {
		case <-s.ready:
		case <-beat.C:
			return Event{Kind: Beat}, nil
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// Close implements Stream.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s, ErrEnded)
}
