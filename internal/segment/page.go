package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	pageMagic = "SLPG"
	flagLast  = 1
)

// PageHeaderBytes is the length of what stands before the body of a page. The body is a ready HTTP body: a JSON
// array, brackets included.
const PageHeaderBytes = 24

// Page is one page of a base.
type Page struct {
	Last bool   // the base ends with it
	Rows uint32 // in the body, the snapshot-end message not counted
	Body []byte
}

// SealPage writes the header of a page whose body stands in b behind PageHeaderBytes that are left free for it.
func SealPage(b []byte, last bool, rows uint32) {
	copy(b, pageMagic)
	binary.LittleEndian.PutUint16(b[4:], Version)
	var flags uint16
	if last {
		flags = flagLast
	}
	binary.LittleEndian.PutUint16(b[6:], flags)
	binary.LittleEndian.PutUint32(b[8:], rows)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-PageHeaderBytes))
	binary.LittleEndian.PutUint32(b[16:], 0) // key id, for encryption by page
	sum := crc32.Checksum(b[:PageHeaderBytes-4], castagnoli)
	binary.LittleEndian.PutUint32(b[20:], crc32.Update(sum, castagnoli, b[PageHeaderBytes:]))
}

// AppendPage appends p's bytes to dst.
func AppendPage(dst []byte, p Page) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, PageHeaderBytes)...)
	dst = append(dst, p.Body...)
	SealPage(dst[start:], p.Last, p.Rows)
	return dst
}

// DecodePage reads a whole page and checks it. Body is a view of b. The error wraps ErrCorrupt or ErrVersion.
func DecodePage(b []byte) (Page, error) {
	h, err := DecodePageHeader(b)
	if err != nil {
		return Page{}, err
	}
	body := b[PageHeaderBytes:]
	sum := crc32.Checksum(b[:PageHeaderBytes-4], castagnoli)
	if crc32.Update(sum, castagnoli, body) != binary.LittleEndian.Uint32(b[20:]) || uint64(h.Bytes) != uint64(len(body)) {
		return Page{}, fmt.Errorf("page checksum differs: %w", ErrCorrupt)
	}
	return Page{Last: h.Last, Rows: h.Rows, Body: body}, nil
}

// PageHeader is what the first PageHeaderBytes of a page say.
type PageHeader struct {
	Last  bool
	Rows  uint32
	Bytes uint32 // of the body
}

// DecodePageHeader reads a page's header without its body, unchecked but for the mark and the version. The error
// wraps ErrCorrupt or ErrVersion.
func DecodePageHeader(b []byte) (PageHeader, error) {
	if len(b) < PageHeaderBytes || string(b[:4]) != pageMagic {
		return PageHeader{}, fmt.Errorf("page of %d bytes without its mark: %w", len(b), ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != Version {
		return PageHeader{}, fmt.Errorf("page version %d: %w", v, ErrVersion)
	}
	return PageHeader{
		Last:  binary.LittleEndian.Uint16(b[6:])&flagLast != 0,
		Rows:  binary.LittleEndian.Uint32(b[8:]),
		Bytes: binary.LittleEndian.Uint32(b[12:]),
	}, nil
}
