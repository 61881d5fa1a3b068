package ingest

import (
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// frameBytesMax is the size at which a frame is closed even inside a transaction, so that no transaction has to fit
// into memory. Its rows stay invisible until the frame with its commit.
const frameBytesMax = 1 << 20

// frame is the frame being built. Message bodies lie one after another in one buffer that is used again and again.
type frame struct {
	bodies  []byte
	ends    []int // of message i in bodies
	offsets []shape.Offset
	touched []*member // those with refs in this frame
	records []segment.Record
	out     segment.Frame // reused by seal
}

func (f *frame) empty() bool { return len(f.touched) == 0 && len(f.records) == 0 }

// message closes the message that the caller has appended to f.bodies, and returns its number.
func (f *frame) message(at shape.Offset) int {
	f.ends = append(f.ends, len(f.bodies))
	f.offsets = append(f.offsets, at)
	return len(f.ends) - 1
}

func (f *frame) body(i int) []byte {
	start := 0
	if i > 0 {
		start = f.ends[i-1]
	}
	return f.bodies[start:f.ends[i]:f.ends[i]]
}

// post adds message i to the shape's log.
func (f *frame) post(m *member, i int, marks segment.Ref) {
	if len(m.refs) == 0 {
		f.touched = append(f.touched, m)
	}
	m.refs = append(m.refs, segment.NewRef(i, marks))
}

// seal returns the frame for the segment builder; it is valid until the next call of reset.
func (f *frame) seal(visible, end pg.LSN) *segment.Frame {
	o := &f.out
	o.Visible, o.End, o.Records = visible, end, f.records
	o.Messages, o.Postings = o.Messages[:0], o.Postings[:0]
	for i := range f.ends {
		o.Messages = append(o.Messages, segment.Message{Offset: f.offsets[i], Body: f.body(i)})
	}
	for _, m := range f.touched {
		if !m.gone && len(m.refs) > 0 {
			o.Postings = append(o.Postings, segment.Posting{Shape: m.id, Refs: m.refs})
		}
	}
	return o
}

func (f *frame) reset() {
	for _, m := range f.touched {
		m.refs = m.refs[:0]
	}
	f.bodies, f.ends, f.offsets, f.touched, f.records = f.bodies[:0], f.ends[:0], f.offsets[:0], f.touched[:0], nil
}
