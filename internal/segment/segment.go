// Package segment is the bytes of the log: frames, the segments that hold them, and the pages of a base. It turns
// them into values and back, and checks what it reads; it opens no store and keeps no state. FORMAT.md beside it is
// the specification.
//
// A frame is what one turn of the pipeline produced: each message once, the postings that say which shape has
// which messages, the records that change the catalogue, and the LSN up to which transactions are complete. A
// segment is frames one after another, an index by shape and a footer. The one idea: a message is rendered once,
// is stored once, and is copied from here to the socket.
package segment

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// Version is the format that this package writes, and the only one it reads.
const Version = 1

const (
	magic       = "SLSG"
	footerMagic = "GSLS"
	headerBytes = 8
	footerBytes = 64
	indexBytes  = 16 // an index entry

	flagFence = 1
)

var (
	// ErrCorrupt is wrapped by errors about bytes that no writer wrote: wrong magic, length or checksum.
	ErrCorrupt = errors.New("object is damaged: restore it from a copy of the bucket, or drop the shapes in it")

	// ErrVersion is wrapped by errors about objects of a format that this build does not know.
	ErrVersion = errors.New("object has an unknown format version: run a newer shapeline")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Meta is what a segment says of itself.
type Meta struct {
	Seq     uint64 // its place in the log
	Epoch   uint64 // of the writer
	Writer  uint64 // random, drawn each time that a writer opens the log
	Prev    uint32 // Sum of the segment before it, as its writer knew it; 0 is unknown
	Fence   bool   // holds no frame; written at takeover
	Visible pg.LSN // of its last frame; 0 in a fence
	End     pg.LSN // of its last frame; 0 in a fence
	Sum     uint32 // CRC32C of all bytes before it: its identity
}

// Builder gathers frames. The zero Builder is ready.
type Builder struct {
	buf          []byte // header space, then frames
	index        []entry
	visible, end pg.LSN
	frames       int
}

type entry struct {
	shape   shape.ID
	frame   uint32 // number of the frame in the segment
	posting uint32 // number of the posting in the frame
}

// Add encodes f behind the frames gathered so far, and returns its bytes, which are valid until the next call. b keeps
// nothing of f.
func (b *Builder) Add(f *Frame) (encoded []byte) {
	if len(b.buf) == 0 {
		b.buf = append(b.buf, make([]byte, headerBytes)...)
	}
	at := len(b.buf)
	b.buf = AppendFrame(b.buf, f)
	for i := range f.Postings {
		b.index = append(b.index, entry{f.Postings[i].Shape, uint32(b.frames), uint32(i)})
	}
	b.visible, b.end = f.Visible, f.End
	b.frames++
	return b.buf[at:]
}

// Len returns the bytes gathered so far; 0 if there is no frame.
func (b *Builder) Len() int { return len(b.buf) }

// Seal returns the segment's bytes and its complete Meta, and leaves b empty. Of m it uses Seq, Epoch, Writer and
// Prev.
func (b *Builder) Seal(m Meta) ([]byte, Meta) {
	m.Fence, m.Visible, m.End = false, b.visible, b.end
	buf, index := b.buf, b.index
	if len(buf) == 0 {
		buf = make([]byte, headerBytes)
	}
	slices.SortFunc(index, func(a, c entry) int {
		return cmp.Or(cmp.Compare(a.shape, c.shape), cmp.Compare(a.frame, c.frame))
	})
	frames := b.frames
	*b = Builder{index: index[:0]}
	return finish(buf, index, frames, m)
}

// Fence returns the bytes and complete Meta of a fence: a segment without frames that takes a slot of the log.
func Fence(m Meta) ([]byte, Meta) {
	m.Fence, m.Visible, m.End = true, 0, 0
	return finish(make([]byte, headerBytes), nil, 0, m)
}

func finish(buf []byte, index []entry, frames int, m Meta) ([]byte, Meta) {
	copy(buf, magic)
	binary.LittleEndian.PutUint16(buf[4:], Version)
	var flags uint16
	if m.Fence {
		flags = flagFence
	}
	binary.LittleEndian.PutUint16(buf[6:], flags)
	indexAt := len(buf)
	for _, e := range index {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(e.shape))
		buf = binary.LittleEndian.AppendUint32(buf, e.frame)
		buf = binary.LittleEndian.AppendUint32(buf, e.posting)
	}
	buf = binary.LittleEndian.AppendUint64(buf, m.Seq)
	buf = binary.LittleEndian.AppendUint64(buf, m.Epoch)
	buf = binary.LittleEndian.AppendUint64(buf, m.Writer)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(m.Visible))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(m.End))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(indexAt))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(index)))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(frames))
	buf = binary.LittleEndian.AppendUint32(buf, m.Prev)
	buf = append(buf, 0, 0, 0, 0) // key id, for encryption by page
	m.Sum = crc32.Checksum(buf, castagnoli)
	buf = binary.LittleEndian.AppendUint32(buf, m.Sum)
	return append(buf, footerMagic...), m
}

// Segment is a decoded segment. Everything in it is a view of the bytes it was decoded from.
type Segment struct {
	Meta
	Frames []Frame
	index  []byte
}

// Decode reads a whole segment and checks it. b must not change afterwards. The error wraps ErrCorrupt or
// ErrVersion.
func Decode(b []byte) (*Segment, error) {
	if len(b) < headerBytes+footerBytes+8 || string(b[:4]) != magic || string(b[len(b)-4:]) != footerMagic {
		return nil, fmt.Errorf("segment of %d bytes without its marks: %w", len(b), ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != Version {
		return nil, fmt.Errorf("segment version %d: %w", v, ErrVersion)
	}
	sumAt := len(b) - 8
	sum := binary.LittleEndian.Uint32(b[sumAt:])
	if crc32.Checksum(b[:sumAt], castagnoli) != sum {
		return nil, fmt.Errorf("segment checksum differs: %w", ErrCorrupt)
	}
	f := b[sumAt-footerBytes : sumAt]
	s := &Segment{Meta: Meta{
		Seq:     binary.LittleEndian.Uint64(f),
		Epoch:   binary.LittleEndian.Uint64(f[8:]),
		Writer:  binary.LittleEndian.Uint64(f[16:]),
		Visible: pg.LSN(binary.LittleEndian.Uint64(f[24:])),
		End:     pg.LSN(binary.LittleEndian.Uint64(f[32:])),
		Prev:    binary.LittleEndian.Uint32(f[56:]),
		Fence:   binary.LittleEndian.Uint16(b[6:])&flagFence != 0,
		Sum:     sum,
	}}
	indexAt := binary.LittleEndian.Uint64(f[40:])
	entries := uint64(binary.LittleEndian.Uint32(f[48:]))
	frames := uint64(binary.LittleEndian.Uint32(f[52:]))
	body := uint64(len(b) - 8 - footerBytes)
	if indexAt < headerBytes || indexAt > body || (body-indexAt)%indexBytes != 0 || (body-indexAt)/indexBytes != entries ||
		s.Fence && (frames != 0 || entries != 0) || frames > (indexAt-headerBytes)/frameBytesMin {
		return nil, fmt.Errorf("segment %d: footer: %w", s.Seq, ErrCorrupt)
	}
	s.index = b[indexAt:body:body]
	s.Frames = make([]Frame, frames)
	rest := b[headerBytes:indexAt:indexAt]
	for i := range s.Frames {
		var err error
		if rest, err = DecodeFrame(rest, &s.Frames[i]); err != nil {
			return nil, fmt.Errorf("segment %d: frame %d: %w", s.Seq, i, err)
		}
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("segment %d: %d bytes after the last frame: %w", s.Seq, len(rest), ErrCorrupt)
	}
	return s, s.checkIndex()
}

// checkIndex checks what Of relies on: ascending entries that name the postings they stand for.
func (s *Segment) checkIndex() error {
	var last entry
	for i := range len(s.index) / indexBytes {
		e := s.entry(i)
		if i > 0 && cmp.Or(cmp.Compare(last.shape, e.shape), cmp.Compare(last.frame, e.frame)) >= 0 ||
			int(e.frame) >= len(s.Frames) || int(e.posting) >= len(s.Frames[e.frame].Postings) ||
			s.Frames[e.frame].Postings[e.posting].Shape != e.shape {
			return fmt.Errorf("segment %d: index entry %d: %w", s.Seq, i, ErrCorrupt)
		}
		last = e
	}
	postings := 0
	for i := range s.Frames {
		postings += len(s.Frames[i].Postings)
	}
	if postings != len(s.index)/indexBytes {
		return fmt.Errorf("segment %d: %d postings, %d in the index: %w", s.Seq, postings, len(s.index)/indexBytes, ErrCorrupt)
	}
	return nil
}

func (s *Segment) entry(i int) entry {
	b := s.index[i*indexBytes:]
	return entry{shape.ID(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
}

// Of calls yield for each message of the shape, in log order, until it returns false.
func (s *Segment) Of(id shape.ID, yield func(m *Message, r Ref) bool) {
	n := len(s.index) / indexBytes
	lo, hi := 0, n
	for lo < hi {
		if mid := (lo + hi) / 2; s.entry(mid).shape < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < n; lo++ {
		e := s.entry(lo)
		if e.shape != id {
			return
		}
		f := &s.Frames[e.frame]
		for _, r := range f.Postings[e.posting].Refs {
			if !yield(&f.Messages[r.Message()], r) {
				return
			}
		}
	}
}
