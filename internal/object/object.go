// Package object is the contract with the bucket: a flat store of immutable or swapped objects, with the few
// conditions that the log, leases and heads stand on. It also has the memory store, the second implementation
// beside object/dir; S3 and MinIO drivers live in packages below it, the acceptance suite that all of them pass
// in object/objecttest.
//
// The one idea: correctness rests on two conditional writes (create if absent, swap if unchanged) that are atomic
// between processes, and on reads that see every finished write. A store that cannot promise these is refused.
// Nothing here retries: whoever writes with a condition must read back what an error left behind.
package object

import (
	"context"
	"errors"
	"time"
)

// The errors that callers ask about with errors.Is. Any other error of a Put is ambiguous: the object may have been
// written all the same, or be written later.
var (
	ErrNotFound = errors.New("object not found")
	ErrExists   = errors.New("object exists already")        // Put with IfAbsent
	ErrChanged  = errors.New("object has changed")           // Put with IfMatch: another etag, or no object
	ErrRange    = errors.New("range lies behind the object") // Get
	ErrFull     = errors.New("store is full")                // Put: out of space or quota; nothing was written
)

// Bounds on a key and on each of its elements; the second is what file systems allow.
const (
	KeyBytesMax     = 512
	ElementBytesMax = 255
)

// Object is what Get returns. The caller owns Body.
type Object struct {
	Body     []byte
	ETag     string    // opaque; two versions of a key share one only if their bytes are equal
	Size     int64     // of the whole object, whatever the range
	Modified time.Time // by the store's own clock
}

// Info describes an object in a List.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time // by the store's own clock
}

// Range selects bytes of an object. The zero Range is all of it.
type Range struct {
	Offset int64 // of the first byte; negative counts from the end
	Length int64 // zero means to the end; a Range that ends behind the object is cut there
}

// Condition is what must hold for a Put to happen.
type Condition struct {
	absent bool
	etag   string
}

// Always puts unconditionally.
func Always() Condition { return Condition{} }

// IfAbsent puts only if no object has the key; else Put returns ErrExists.
func IfAbsent() Condition { return Condition{absent: true} }

// IfMatch puts only over the version with this etag; else Put returns ErrChanged. It panics if etag is empty, which
// would be no condition at all.
func IfMatch(etag string) Condition {
	if etag == "" {
		panic("object: IfMatch of an empty etag")
	}
	return Condition{etag: etag}
}

// Absent reports whether c is IfAbsent.
func (c Condition) Absent() bool { return c.absent }

// ETag returns the etag of an IfMatch, or "".
func (c Condition) ETag() string { return c.etag }

// Reader is the reading half of a store: all that serve needs.
type Reader interface {
	// Get returns the object or the part of it that r selects. It returns ErrNotFound, or ErrRange if r begins
	// behind the end.
	Get(ctx context.Context, key string, r Range) (*Object, error)

	// List returns up to limit objects whose key begins with prefix and is greater than after, in key order.
	// limit <= 0 means all.
	List(ctx context.Context, prefix, after string, limit int) ([]Info, error)
}

// Store is a bucket. All methods may be called at the same time, from many processes. What a Put has acknowledged
// is durable and seen by every later Get and List.
type Store interface {
	Reader

	// Put stores body under key and returns its etag. A condition that does not hold is ErrExists or ErrChanged, and
	// nothing is written. The store does not keep body. Put is atomic: no reader ever sees a part.
	Put(ctx context.Context, key string, body []byte, c Condition) (etag string, err error)

	// Delete removes the object; that there is none is no error.
	Delete(ctx context.Context, key string) error

	// Caps tells what the store is like, for choosing intervals.
	Caps() Caps
}

// Caps describes a store's speed and price class.
type Caps struct {
	Name          string        // for logs: "memory", "directory", ...
	FlushInterval time.Duration // default pause between segments under load
	ProbeInterval time.Duration // default pause between probes while somebody waits
	ListInterval  time.Duration // default pause between lists for what others may have left; lists cost as much as puts
}
