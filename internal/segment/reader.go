package segment

import "encoding/binary"

// Reader takes values off the front of bytes. After the first thing that is not there everything it returns is zero,
// so that a decoder can read a whole structure and ask once, with Done, whether it was there.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader returns a reader of b, which must not change meanwhile.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Done reports whether all of the bytes were read and nothing was missing.
func (r *Reader) Done() bool { return !r.bad && len(r.b) == 0 }

// Failed reports whether something was missing.
func (r *Reader) Failed() bool { return r.bad }

// Fail makes the reader behave as if something were missing: for values that make no sense.
func (r *Reader) Fail() { r.bad, r.b = true, nil }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.b) == 0 {
		r.Fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// U64 reads eight bytes, the lowest first.
func (r *Reader) U64() uint64 {
	if len(r.b) < 8 {
		r.Fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// Uvarint reads a number of variable length.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Varint reads a signed number of variable length.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Count reads a number of things of at least size bytes each, so that no lie can make us allocate.
func (r *Reader) Count(size int) int {
	n := r.Uvarint()
	if n > uint64(len(r.b)/size) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Bytes reads a length and as many bytes, as a view.
func (r *Reader) Bytes() []byte {
	n := r.Count(1)
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
