package segment

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// sealBytes is the length of what SealJSON puts at the end: `,`, newline, `  "sum": "xxxxxxxx"`, newline, `}`.
const sealBytes = 23

// SealJSON encodes v, which must be a struct with at least one member, for people to read, with its own checksum as
// the last member. Readers of the JSON ignore it.
func SealJSON(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return appendSeal(b[:len(b)-2]), nil // without its newline and bracket
}

func appendSeal(b []byte) []byte {
	return fmt.Appendf(b, ",\n  \"sum\": \"%08x\"\n}", crc32.Checksum(b, castagnoli))
}

// CheckJSON reports whether b is, to the bit, what SealJSON made. The error wraps ErrCorrupt. What a person has edited
// fails it, and is read all the same: only who looks for damage asks.
func CheckJSON(b []byte) error {
	if len(b) < sealBytes || !json.Valid(b) {
		return fmt.Errorf("not JSON: %w", ErrCorrupt)
	}
	body := b[: len(b)-sealBytes : len(b)-sealBytes]
	if string(appendSeal(body)) != string(b) {
		return fmt.Errorf("checksum differs: %w", ErrCorrupt)
	}
	return nil
}
