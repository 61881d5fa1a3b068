package postgres

import (
	"sync"

	"github.com/shapeline/shapeline/internal/pg"
)

// What may lie between the connection and the pipeline. Twice this is in memory at most, plus one message however
// large: one batch being filled, one being read.
const (
	aheadBytesMax  = 1 << 20
	aheadEventsMax = 4096
)

// batch is events in a row, their bytes one after another.
type batch struct {
	data   []byte
	events []place
}

// place is an event whose bytes end at end of its batch's data; a keepalive has none.
type place struct {
	end       int
	start     pg.LSN // where the message's record begins, or the server's position
	keepalive bool
}

func (b *batch) reset() {
	if cap(b.data) > 4*aheadBytesMax { // after a huge row
		b.data = nil
	}
	b.data, b.events = b.data[:0], b.events[:0]
}

// readAhead passes events from one goroutine to another, a batch at a time: the reader fills one batch while the
// taker empties the other.
type readAhead struct {
	ready chan struct{} // there is something to take; holds one token
	room  chan struct{} // the batch has been taken; holds one token

	mu   sync.Mutex
	fill *batch
	err  error // why there will be no more
}

func newReadAhead() *readAhead {
	return &readAhead{ready: make(chan struct{}, 1), room: make(chan struct{}, 1), fill: &batch{}}
}

// put copies an event into the batch and reports whether there was room for it.
func (q *readAhead) put(data []byte, p place) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.fill
	if len(b.events) >= aheadEventsMax || len(b.events) > 0 && len(b.data)+len(data) > aheadBytesMax {
		return false
	}
	b.data = append(b.data, data...)
	p.end = len(b.data)
	b.events = append(b.events, p)
	if len(b.events) == 1 {
		signal(q.ready)
	}
	return true
}

// fail says that there will be no more events, because of err. What was put before can still be taken.
func (q *readAhead) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	signal(q.ready)
}

// swap resets the empty batch and exchanges it for the events that are there, nil for none. Once all are taken it
// returns what fail was given.
func (q *readAhead) swap(empty *batch) (*batch, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	empty.reset()
	if len(q.fill.events) == 0 {
		return nil, q.err
	}
	full := q.fill
	q.fill = empty
	signal(q.room)
	return full, nil
}

// signal puts the token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
