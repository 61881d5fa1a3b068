package pgoutput

import (
	"bytes"
	"encoding/binary"
)

// reader walks over one message. Its callers compare what they need with left before they read.
type reader struct {
	b    []byte
	at   int
	kind Kind
}

func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) byte() byte {
	v := r.b[r.at]
	r.at++
	return v
}

func (r *reader) uint16() uint16 {
	v := binary.BigEndian.Uint16(r.b[r.at:])
	r.at += 2
	return v
}

func (r *reader) uint32() uint32 {
	v := binary.BigEndian.Uint32(r.b[r.at:])
	r.at += 4
	return v
}

func (r *reader) uint64() uint64 {
	v := binary.BigEndian.Uint64(r.b[r.at:])
	r.at += 8
	return v
}

// text reads a text that ends with a zero byte.
func (r *reader) text() ([]byte, bool) {
	n := bytes.IndexByte(r.b[r.at:], 0)
	if n < 0 {
		return nil, false
	}
	v := r.b[r.at : r.at+n : r.at+n]
	r.at += n + 1
	return v, true
}

func (r *reader) malformed(reason string) error {
	return &MalformedError{Kind: r.kind, At: r.at, Reason: reason}
}
