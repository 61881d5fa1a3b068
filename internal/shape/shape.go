// Package shape is the vocabulary of what a client receives: offsets, handles, tables, keys, definitions and
// messages. It parses and prints them, strictly, and nothing else: it reads no log and evaluates no filter.
// The wire forms are those of Electric's protocol.
//
// The one idea: whatever a client may compare is made by one function here, so that snapshot, stream and subset
// answers cannot disagree about a key, a value or a definition.
package shape

import (
	"fmt"
	"strconv"
	"strings"
)

// ID names a shape for good: no two shapes of a bucket ever share one. Zero is none.
type ID uint64

// String prints id as the 16 hexadecimal digits that object keys use.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// Handle names one log of a shape: its ID and the number of the base that the log begins with. Clients treat the
// text as opaque; a handle is never used again for another log.
type Handle struct {
	Shape ID
	Base  uint32
}

// ParseHandle reads what Handle.String prints: <shape>-<base>, both decimal without leading zeros.
func ParseHandle(s string) (Handle, error) {
	id, base, ok := strings.Cut(s, "-")
	i, ierr := strconv.ParseUint(id, 10, 64)
	b, berr := strconv.ParseUint(base, 10, 32)
	h := Handle{ID(i), uint32(b)}
	if !ok || ierr != nil || berr != nil || i == 0 || h.String() != s {
		return Handle{}, fmt.Errorf("handle %q is not one of ours", s)
	}
	return h, nil
}

// String prints h in the characters that Electric's handles have.
func (h Handle) String() string {
	return strconv.FormatUint(uint64(h.Shape), 10) + "-" + strconv.FormatUint(uint64(h.Base), 10)
}

// IsZero reports whether h names nothing.
func (h Handle) IsZero() bool { return h.Shape == 0 }

// MarshalText prints h for JSON.
func (h Handle) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Handle) UnmarshalText(b []byte) (err error) {
	*h, err = ParseHandle(string(b))
	return err
}

// PageKey is the object key of page n of a base (design, section 2).
func (h Handle) PageKey(n uint32) string {
	return fmt.Sprintf("shapes/%s/base/%08x/%08x", h.Shape, h.Base, n)
}
