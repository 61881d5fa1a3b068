package shapelog

import (
	"context"
	"sync"

	"github.com/shapeline/shapeline/internal/segment"
)

// recentBytesMax bounds the segments that a writer keeps once they are stored: about what is packed at a time, so that
// packing need not ask the store for what this process has just written.
const recentBytesMax = 16 << 20

// recent is the last segments that a writer has stored.
type recent struct {
	mu     sync.Mutex
	bodies map[uint64][]byte
	oldest uint64
	bytes  int
}

// keep takes in the next segment.
func (r *recent) keep(seq uint64, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bodies == nil {
		r.bodies, r.oldest = make(map[uint64][]byte), seq
	}
	r.bodies[seq] = body
	r.bytes += len(body)
	for r.bytes > recentBytesMax {
		r.bytes -= len(r.bodies[r.oldest])
		delete(r.bodies, r.oldest)
		r.oldest++
	}
}

// take returns the segment's bytes, and forgets them: nil if they are not there.
func (r *recent) take(seq uint64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bodies[seq]
	r.bytes -= len(b)
	delete(r.bodies, seq)
	return b
}

// Read returns a segment that is durable, from memory if this writer has stored it lately and nobody has read it yet. It
// tries more than once, for those who read many. The error wraps object.ErrNotFound if it has been collected.
func (w *Writer) Read(ctx context.Context, seq uint64) (*segment.Segment, error) {
	if b := w.recent.take(seq); b != nil {
		return segment.Decode(b)
	}
	return readSegment(ctx, w.store, seq)
}
