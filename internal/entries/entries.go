// Package entries reads the entries of one shape's log, one after another, from where a catalogue says that they lie:
// in segments and packs. It is for those who work through a log at leisure; serve, which makes answers of it, has a way
// of its own (serve/body).
//
// It decides nothing about which entries count: extents do.
package entries

import (
	"context"
	"errors"
	"fmt"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// kept is how many decoded objects a Reader remembers: shapes that are read one after another share packs.
const kept = 4

// ErrMoved is the absence of what an extent refers to: what it held has been packed since, or is no longer kept. A
// newer state says where to look.
var ErrMoved = errors.New("what the log refers to has moved")

// Reader reads entries. It is for one goroutine.
type Reader struct {
	store object.Reader
	keys  [kept]string
	held  [kept]*segment.Segment
	next  int
}

// NewReader returns a reader of what is in store.
func NewReader(store object.Reader) *Reader { return &Reader{store: store} }

// Key is the key of the object that x lies in.
func Key(x *catalog.Extent) string {
	if x.Pack != nil {
		return x.Pack.Key()
	}
	return shapelog.SegmentKey(x.Seq)
}

// Each calls visit for the entries of the shape in (after, end], in log order; extents must be those that hold them. The
// error is visit's, the store's, ErrMoved, or wraps segment.ErrCorrupt or segment.ErrVersion.
func (r *Reader) Each(
	ctx context.Context, id shape.ID, extents []catalog.Extent, after, end shape.Offset,
	visit func(m *segment.Message, ref segment.Ref) error,
) error {
	for i := range extents {
		x := &extents[i]
		if x.Last.Compare(after) <= 0 || x.First.Compare(end) > 0 {
			continue
		}
		s, err := r.get(ctx, Key(x))
		if err != nil {
			return err
		}
		s.Of(id, func(m *segment.Message, ref segment.Ref) bool {
			switch {
			case m.Offset.Compare(after) <= 0 || m.Offset.Compare(x.First) < 0:
				return true // seen, or of a transaction that was cut by a crash
			case m.Offset.Compare(x.Last) > 0 || m.Offset.Compare(end) > 0:
				return false
			}
			after = m.Offset
			err = visit(m, ref)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) get(ctx context.Context, key string) (*segment.Segment, error) {
	for i := range r.keys {
		if r.keys[i] == key {
			return r.held[i], nil
		}
	}
	o, err := r.store.Get(ctx, key, object.Range{})
	if errors.Is(err, object.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", key, ErrMoved)
	} else if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	s, err := segment.Decode(o.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	r.keys[r.next], r.held[r.next] = key, s
	r.next = (r.next + 1) % kept
	return s, nil
}
