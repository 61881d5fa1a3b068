package body

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
	"github.com/shapeline/shapeline/serve/lru"
)

// segmentsAhead is how many segments one answer reads at the same time.
const segmentsAhead = 4

// Source reads what bodies are made of, and keeps the segments used last. Its errors are the store's, or wrap
// segment.ErrCorrupt or segment.ErrVersion.
type Source struct {
	store object.Reader
	cache *lru.Cache[place, *segment.Segment]
	loads singleflight.Group
	live  live
}

// holder is what entries of a shape are taken from, in log order.
type holder interface {
	Of(id shape.ID, yield func(m *segment.Message, r segment.Ref) bool)
}

// place names a segment, or a pack of level 1, which has the form of one.
type place struct {
	first, last uint64
	sum         uint32 // of a pack; else 0
}

func placeOf(x *catalog.Extent) place {
	if x.Pack != nil {
		return place{x.Pack.First, x.Pack.Last, x.Pack.Sum}
	}
	return place{x.Seq, x.Seq, 0}
}

func keyOf(x *catalog.Extent) string {
	if x.Pack != nil {
		return x.Pack.Key()
	}
	return shapelog.SegmentKey(x.Seq)
}

// NewSource returns a source that keeps up to segmentBytes of decoded segments.
func NewSource(store object.Reader, segmentBytes int64) *Source {
	return &Source{store: store, cache: lru.New[place, *segment.Segment](segmentBytes)}
}

// Keep adds a segment that the follower has read.
func (s *Source) Keep(seg *segment.Segment) {
	if !seg.Fence {
		s.keep(place{seg.Seq, seg.Seq, 0}, seg)
	}
}

func (s *Source) keep(at place, seg *segment.Segment) { s.cache.Put(at, seg, weigh(seg)) }

// weigh estimates the memory of a decoded segment.
func weigh(seg *segment.Segment) int64 {
	n := int(unsafe.Sizeof(*seg))
	for i := range seg.Frames {
		f := &seg.Frames[i]
		n += int(unsafe.Sizeof(*f)) + len(f.Messages)*int(unsafe.Sizeof(segment.Message{})) +
			len(f.Postings)*int(unsafe.Sizeof(segment.Posting{})) + len(f.Records)*int(unsafe.Sizeof(segment.Record{}))
		for j := range f.Messages {
			n += len(f.Messages[j].Body)
		}
		for j := range f.Postings {
			n += len(f.Postings[j].Refs) * int(unsafe.Sizeof(segment.Ref(0)))
		}
		for j := range f.Records {
			n += len(f.Records[j].Body)
		}
	}
	return int64(n)
}

// ErrCollected is the absence of a segment or a pack that a plan refers to: what it held has moved since the plan was
// made, or is no longer kept. A newer plan says where to look.
var ErrCollected = errors.New("what the log refers to has moved")

// get returns what x lies in. Callers that want the same at once share one read; ctx is theirs to have made long.
func (s *Source) get(ctx context.Context, x *catalog.Extent) (holder, error) {
	at := placeOf(x)
	if seg, ok := s.cache.Get(at); ok {
		return seg, nil
	}
	key := keyOf(x)
	v, err, _ := s.loads.Do(key, func() (any, error) {
		if seg, ok := s.cache.Get(at); ok { // the load that this call just missed
			return seg, nil
		}
		o, err := s.store.Get(ctx, key, object.Range{})
		if errors.Is(err, object.ErrNotFound) {
			return nil, fmt.Errorf("%s: %w", key, ErrCollected)
		} else if err != nil {
			return nil, fmt.Errorf("get segment: %w", err)
		}
		seg, err := segment.Decode(o.Body)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", key, err)
		}
		s.keep(at, seg)
		return seg, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*segment.Segment), nil
}

// Entries renders the entries of a shape's log in (after, p.End]: as the beginning of a JSON array, without its
// end, or as SSE frames.
func (s *Source) Entries(ctx context.Context, p *catalog.Plan, after shape.Offset, sse bool) ([]byte, error) {
	var buf []byte
	if !sse {
		buf = append(buf, '[')
	}
	at := after
	for from := 0; from < len(p.Extents); from += segmentsAhead {
		part := p.Extents[from:min(from+segmentsAhead, len(p.Extents))]
		read, err := s.several(ctx, part)
		if err != nil {
			return nil, err
		}
		for i := range part {
			buf, at = appendExtent(buf, read[i], p.Info.ID, part[i], at, p.End, sse)
		}
	}
	return buf, nil
}

// several returns the segments of up to segmentsAhead extents.
func (s *Source) several(ctx context.Context, part []catalog.Extent) (read [segmentsAhead]holder, err error) {
	var group errgroup.Group
	missing := false
	for i := range part {
		if h := s.live.get(&part[i]); h != nil {
			read[i] = h
			continue
		}
		if seg, ok := s.cache.Get(placeOf(&part[i])); ok {
			read[i] = seg
			continue
		}
		missing = true
		group.Go(func() (err error) {
			read[i], err = s.get(ctx, &part[i])
			return err
		})
	}
	if missing {
		err = group.Wait()
	}
	return read, err
}

// appendExtent appends the entries of x behind at, up to end. A segment may hold an entry twice, if the stream was
// read again: the second is not behind the first, and is left out as the catalogue left it out.
func appendExtent(
	buf []byte, seg holder, id shape.ID, x catalog.Extent, at, end shape.Offset, sse bool,
) ([]byte, shape.Offset) {
	seg.Of(id, func(m *segment.Message, r segment.Ref) bool {
		if m.Offset.Compare(at) <= 0 || m.Offset.Compare(x.First) < 0 {
			return true
		}
		if m.Offset.Compare(x.Last) > 0 || m.Offset.Compare(end) > 0 {
			return false
		}
		at = m.Offset
		if sse {
			buf = append(buf, "data: "...)
		} else if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = shape.AppendEnd(append(buf, m.Body...), r.Last())
		if sse {
			buf = append(buf, "\n\n"...)
		}
		return true
	})
	return buf, at
}

// ErrNoPage is the absence of a page, which may still be written.
var ErrNoPage = errors.New("page is not there")

// Page returns the body of page n of the base of h: as it lies in the bucket, or as SSE frames.
func (s *Source) Page(ctx context.Context, h shape.Handle, n uint32, sse bool) ([]byte, error) {
	o, err := s.store.Get(ctx, h.PageKey(n), object.Range{})
	if errors.Is(err, object.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", h.PageKey(n), ErrNoPage)
	} else if err != nil {
		return nil, fmt.Errorf("get page: %w", err)
	}
	p, err := segment.DecodePage(o.Body)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", h.PageKey(n), err)
	}
	if !sse {
		return p.Body, nil
	}
	var messages []json.RawMessage
	if err := json.Unmarshal(p.Body, &messages); err != nil {
		return nil, fmt.Errorf("decode %s: %w", h.PageKey(n), errors.Join(segment.ErrCorrupt, err))
	}
	var buf []byte
	for _, m := range messages {
		buf = append(append(append(buf, "data: "...), m...), "\n\n"...)
	}
	return buf, nil
}
