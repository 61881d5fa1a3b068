// Package audit looks at a bucket from outside, for people in an incident: it verifies every object and what they say
// of each other, and shows any object as text. It only reads; it repairs nothing and deletes nothing.
//
// The one idea: the log is folded the way every reader folds it, and then each object is held against what the fold
// says of it, one object at a time, so that memory does not depend on the size of the bucket.
package audit

import (
	"strconv"
	"strings"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// Kind is what an object is, by its key.
type Kind string

// The kinds, as design section 2 lists them.
const (
	KindControl    Kind = "control"
	KindSegment    Kind = "segment" // or fence
	KindPack       Kind = "pack"
	KindChunk      Kind = "chunk"
	KindCheckpoint Kind = "checkpoint"
	KindPage       Kind = "page"
	KindDefinition Kind = "definition"
	KindRequest    Kind = "request"
	KindUnknown    Kind = "unknown"
)

const (
	packPrefix   = "pack/"
	shapesPrefix = "shapes/"
)

// KindOf returns the kind of the object under key.
func KindOf(key string) Kind {
	switch folder, rest, _ := strings.Cut(key, "/"); {
	case key == shapelog.ControlKey:
		return KindControl
	case strings.HasPrefix(key, shapelog.LogPrefix):
		return KindSegment
	case strings.HasPrefix(key, packPrefix):
		return KindPack
	case strings.HasPrefix(key, catalog.ShardsPrefix):
		return KindCheckpoint
	case strings.HasPrefix(key, catalog.DefinitionsPrefix):
		return KindDefinition
	case strings.HasPrefix(key, catalog.RequestsPrefix):
		return KindRequest
	case folder+"/" == shapesPrefix && strings.Contains(rest, "/base/"):
		return KindPage
	case folder+"/" == shapesPrefix && strings.Contains(rest, "/chunk/"):
		return KindChunk
	}
	return KindUnknown
}

// parsePageKey reads what shape.Handle.PageKey returns.
func parsePageKey(key string) (h shape.Handle, page uint32, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return h, 0, false
	}
	id, err1 := strconv.ParseUint(parts[1], 16, 64)
	base, err2 := strconv.ParseUint(parts[3], 16, 32)
	n, err3 := strconv.ParseUint(parts[4], 16, 32)
	h = shape.Handle{Shape: shape.ID(id), Base: uint32(base)}
	return h, uint32(n), err1 == nil && err2 == nil && err3 == nil && h.PageKey(uint32(n)) == key
}

// parseShardKey reads what catalog.ShardKey returns.
func parseShardKey(key string) (generation uint64, shard int, ok bool) {
	g, s, _ := strings.Cut(strings.TrimPrefix(key, catalog.ShardsPrefix), "/")
	generation, err1 := strconv.ParseUint(g, 16, 64)
	n, err2 := strconv.ParseUint(s, 16, 31)
	return generation, int(n), err1 == nil && err2 == nil && catalog.ShardKey(generation, int(n)) == key
}
