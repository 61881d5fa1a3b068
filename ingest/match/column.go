package match

// column finds the shapes that tie one column to constants, by the constant's key. With many shapes a look-up costs
// what it misses in the processor's cache, so the common case follows no pointer: a short key, and the one shape
// that it leads to, stand in the table itself.
type column struct {
	number int
	short  map[shortKey]entry
	long   map[string]entry
}

// shortKey is a key of at most 15 bytes, padded with zeros, and its length.
type shortKey [16]byte

const shortBytesMax = len(shortKey{}) - 1

// entry is what one key leads to: a bucket or, without one, the one shape that asks for nothing else.
type entry struct {
	bucket *bucket
	only   uint64
}

func newColumn(number int) *column {
	return &column{number, map[shortKey]entry{}, map[string]entry{}}
}

func (c *column) find(key []byte) (entry, bool) {
	if len(key) > shortBytesMax {
		e, ok := c.long[string(key)]
		return e, ok
	}
	e, ok := c.short[shorten(key)]
	return e, ok
}

func (c *column) set(key string, e entry) {
	if len(key) > shortBytesMax {
		c.long[key] = e
	} else {
		c.short[shorten([]byte(key))] = e
	}
}

func (c *column) drop(key string) {
	if len(key) > shortBytesMax {
		delete(c.long, key)
	} else {
		delete(c.short, shorten([]byte(key)))
	}
}

func (c *column) empty() bool { return len(c.short) == 0 && len(c.long) == 0 }

// shorten makes a shortKey of at most shortBytesMax bytes.
func shorten(key []byte) (k shortKey) {
	k[shortBytesMax] = byte(copy(k[:shortBytesMax], key))
	return k
}
