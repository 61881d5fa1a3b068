package segment

import (
	"encoding/binary"
	"hash/crc32"
)

// Reframe puts a right length and checksum before a payload.
func Reframe(payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...)
}
