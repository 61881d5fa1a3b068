package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// Frame is one turn of the pipeline. A message whose transaction is behind Visible is not yet to be shown: the rest
// of its transaction comes with later frames of the same epoch, or the transaction comes again whole.
type Frame struct {
	Visible  pg.LSN // every transaction with a commit LSN up to this one is complete
	End      pg.LSN // where the stream goes on after the last complete transaction
	Messages []Message
	Postings []Posting // in no order; at most one a shape
	Records  []Record  // take effect before the postings of the same frame
}

// Message is a rendered change without its end (see shape.AppendEnd).
type Message struct {
	Offset shape.Offset
	Body   []byte
}

// Posting says which messages of the frame a shape has, in log order.
type Posting struct {
	Shape shape.ID
	Refs  []Ref
}

// Ref points at a message of the frame and carries what differs by shape.
type Ref uint32

// The marks of a Ref.
const (
	RefLast     Ref = 1 // the last change of its transaction in the shape
	RefChunkEnd Ref = 2 // closes a chunk of the shape's log
	refShift        = 2
)

// MessagesMax bounds the messages of a frame, so that a Ref can point at each.
const MessagesMax = 1 << (32 - refShift)

// NewRef returns a Ref to message i of the frame.
func NewRef(i int, marks Ref) Ref { return Ref(i)<<refShift | marks }

// Message returns the number of the message.
func (r Ref) Message() int { return int(r >> refShift) }

// Last reports whether r is marked RefLast.
func (r Ref) Last() bool { return r&RefLast != 0 }

// ChunkEnd reports whether r is marked RefChunkEnd.
func (r Ref) ChunkEnd() bool { return r&RefChunkEnd != 0 }

// Record is a change of the catalogue. Kind and Body are the catalogue's.
type Record struct {
	Kind  byte
	Shape shape.ID // 0 if it is about none
	Body  []byte
}

const (
	frameHeaderBytes = 8
	frameBytesMin    = frameHeaderBytes + 16 + 3
)

// AppendFrame appends f's bytes to dst.
func AppendFrame(dst []byte, f *Frame) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeaderBytes)...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.Visible))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(f.End))
	dst = binary.AppendUvarint(dst, uint64(len(f.Messages)))
	var tx uint64
	for i := range f.Messages {
		m := &f.Messages[i]
		dst = binary.AppendVarint(dst, int64(m.Offset.Tx-tx))
		dst = binary.AppendUvarint(dst, m.Offset.Op)
		dst = binary.AppendUvarint(dst, uint64(len(m.Body)))
		dst = append(dst, m.Body...)
		tx = m.Offset.Tx
	}
	dst = binary.AppendUvarint(dst, uint64(len(f.Postings)))
	for i := range f.Postings {
		p := &f.Postings[i]
		dst = binary.LittleEndian.AppendUint64(dst, uint64(p.Shape))
		dst = binary.AppendUvarint(dst, uint64(len(p.Refs)))
		for _, r := range p.Refs {
			dst = binary.AppendUvarint(dst, uint64(r))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(f.Records)))
	for i := range f.Records {
		r := &f.Records[i]
		dst = append(dst, r.Kind)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Shape))
		dst = binary.AppendUvarint(dst, uint64(len(r.Body)))
		dst = append(dst, r.Body...)
	}
	payload := dst[start+frameHeaderBytes:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(payload, castagnoli))
	return dst
}

// DecodeFrame reads the frame at the start of b into f, as views of b, and returns the bytes after it. The error
// wraps ErrCorrupt.
func DecodeFrame(b []byte, f *Frame) (rest []byte, err error) {
	if len(b) < frameBytesMin {
		return nil, fmt.Errorf("%d bytes left: %w", len(b), ErrCorrupt)
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n > uint64(len(b)-frameHeaderBytes) {
		return nil, fmt.Errorf("length %d of %d: %w", n, len(b), ErrCorrupt)
	}
	payload := b[frameHeaderBytes : frameHeaderBytes+n : frameHeaderBytes+n]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, fmt.Errorf("checksum differs: %w", ErrCorrupt)
	}
	r := NewReader(payload)
	*f = Frame{Visible: pg.LSN(r.U64()), End: pg.LSN(r.U64())}
	f.messages(r)
	f.postings(r)
	f.records(r)
	if !r.Done() {
		return nil, fmt.Errorf("payload: %w", ErrCorrupt)
	}
	return b[frameHeaderBytes+n:], nil
}

func (f *Frame) messages(r *Reader) {
	n := r.Count(3)
	if n > MessagesMax {
		r.Fail()
		return
	}
	f.Messages = make([]Message, n)
	var tx uint64
	for i := range f.Messages {
		tx += uint64(r.Varint())
		op := r.Uvarint()
		f.Messages[i] = Message{Offset: shape.At(pg.LSN(tx), op), Body: r.Bytes()}
	}
}

func (f *Frame) postings(r *Reader) {
	f.Postings = make([]Posting, r.Count(9))
	refs := make([]Ref, 0, len(f.Postings))
	for i := range f.Postings {
		p := &f.Postings[i]
		p.Shape = shape.ID(r.U64())
		from := len(refs)
		for range r.Count(1) {
			v := r.Uvarint()
			if v>>refShift >= uint64(len(f.Messages)) {
				r.Fail()
				return
			}
			refs = append(refs, Ref(v))
		}
		p.Refs = refs[from:len(refs):len(refs)]
	}
}

func (f *Frame) records(r *Reader) {
	f.Records = make([]Record, r.Count(10))
	for i := range f.Records {
		f.Records[i] = Record{Kind: r.Byte(), Shape: shape.ID(r.U64()), Body: r.Bytes()}
	}
}
