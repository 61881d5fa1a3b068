package catalog

import (
	"encoding/binary"
	"hash/crc32"
)

// Recheck puts a right head and checksum around a checkpoint's body.
func Recheck(body []byte) []byte {
	b := append([]byte(checkpointMagic), checkpointVersion, 0, 0, 0)
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}
