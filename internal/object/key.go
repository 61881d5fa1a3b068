package object

import (
	"fmt"
	"strings"
)

// ValidKey returns nil if key may name an object, else an error that says what is wrong with it. A key is elements
// joined by slashes, KeyBytesMax in all; an element is 1 to ElementBytesMax of A-Z a-z 0-9 . _ - and is neither "."
// nor "..". Besides, no key may be a folder of another, and no two may differ in case alone: some file systems do
// not tell them apart.
func ValidKey(key string) error {
	if len(key) > KeyBytesMax {
		return fmt.Errorf("key of %d bytes: at most %d are allowed", len(key), KeyBytesMax)
	}
	for rest, more := key, true; more; {
		var element string
		element, rest, more = strings.Cut(rest, "/")
		if err := validElement(element); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func validElement(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("an element is empty")
	case s == "." || s == "..":
		return fmt.Errorf("element %q is not allowed", s)
	case len(s) > ElementBytesMax:
		return fmt.Errorf("an element has %d bytes: at most %d are allowed", len(s), ElementBytesMax)
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-' {
			continue
		}
		return fmt.Errorf("byte %#02x is not allowed", c)
	}
	return nil
}

// Cut returns the part of an object of the given size that r selects, as [from, to). It returns ErrRange if r
// begins behind the end; at the end is behind it too, unless r is the zero Range.
func (r Range) Cut(size int64) (from, to int64, err error) {
	from, to = r.Offset, size
	if from < 0 {
		from = max(0, size+from)
	}
	if r.Length < 0 || r != (Range{}) && from >= size {
		return 0, 0, fmt.Errorf("range %d+%d of %d bytes: %w", r.Offset, r.Length, size, ErrRange)
	}
	if r.Length > 0 && r.Length < size-from {
		to = from + r.Length
	}
	return from, to, nil
}
