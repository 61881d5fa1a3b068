package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// Problem is something wrong with a bucket.
type Problem struct {
	Key  string `json:"key"`
	What string `json:"what"`
}

// Count is how much there is of a kind.
type Count struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Result is what Check found.
type Result struct {
	Kinds    map[Kind]Count `json:"kinds"`
	Shapes   int            `json:"shapes"`
	Problems []Problem      `json:"problems"`
}

// checker is one look at a bucket.
type checker struct {
	store  object.Reader
	state  *catalog.State // the fold of everything in the log
	expect map[string][]expectation
	result Result
}

// expectation is what the fold says of an object.
type expectation struct {
	id          shape.ID
	first, last shape.Offset // entries of id that must be there, and all in between; zero for a page
	lastPage    bool         // the base ends with this page
	isPage      bool
}

// listMax is how many names are asked for at a time.
const listMax = 1000

// Check verifies every object of the bucket by itself, and against what the log says of it. It tells progress, unless
// nil, after each object. An error means that it could not look; what is wrong with the bucket stands in the result.
// A bucket that changes meanwhile may make it report objects that were deleted in between.
func Check(ctx context.Context, store object.Reader, progress func(done, total int)) (*Result, error) {
	all, err := list(ctx, store)
	if err != nil {
		return nil, err
	}
	c := &checker{store: store, expect: make(map[string][]expectation), result: Result{Kinds: make(map[Kind]Count), Problems: []Problem{}}}
	if err := c.fold(ctx); err != nil {
		return nil, err
	}
	for i, info := range all {
		if err := c.object(ctx, info); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(i+1, len(all))
		}
	}
	for key := range c.expect {
		c.problem(key, "is missing, although the log refers to it: restore it from a copy of the bucket, or drop the shape")
	}
	return &c.result, nil
}

// list returns everything in the bucket.
func list(ctx context.Context, store object.Reader) ([]object.Info, error) {
	var all []object.Info
	for after := ""; ; {
		page, err := store.List(ctx, "", after, listMax)
		if err != nil {
			return nil, fmt.Errorf("list the bucket: %w", err)
		}
		all = append(all, page...)
		if len(page) < listMax {
			return all, nil
		}
		after = page[len(page)-1].Key
	}
}

func (c *checker) problem(key, format string, args ...any) {
	c.result.Problems = append(c.result.Problems, Problem{key, fmt.Sprintf(format, args...)})
}

// get reads a whole object; nil if it is not there.
func (c *checker) get(ctx context.Context, key string) (*object.Object, error) {
	o, err := c.store.Get(ctx, key, object.Range{})
	if errors.Is(err, object.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return o, nil
}

// fold reads the log the way a reader does, as far as it is sound, and notes what it refers to.
func (c *checker) fold(ctx context.Context) error {
	c.state = catalog.New()
	control, _, err := shapelog.ReadControl(ctx, c.store)
	if errors.Is(err, shapelog.ErrNoLog) {
		return nil
	} else if err != nil {
		c.problem(shapelog.ControlKey, "cannot be read: %v", err)
		return nil
	}
	at := control.Checkpoint
	if err := c.state.Load(ctx, c.store, at.Generation, at.Shards); err != nil {
		c.problem(catalog.ShardKey(at.Generation, 0), "the checkpoint cannot be loaded: %v", err)
		return nil
	}
	if err := c.foldTail(ctx, at.Seq+1, at.Epoch); err != nil {
		return err
	}
	shapes := c.state.Shapes()
	c.result.Shapes = len(shapes)
	for i := range shapes {
		c.expectShape(&shapes[i])
	}
	_, epoch, _, _ := c.state.Position()
	if epoch > control.Epoch {
		c.problem(shapelog.ControlKey, "is of epoch %d, but the log has segments of epoch %d", control.Epoch, epoch)
	}
	return nil
}

// foldTail applies the segments from next on.
func (c *checker) foldTail(ctx context.Context, next, epoch uint64) error {
	var before *segment.Segment
	for ; ; next++ {
		key := shapelog.SegmentKey(next)
		o, err := c.get(ctx, key)
		if err != nil {
			return err
		}
		if o == nil {
			return c.nothingBehind(ctx, key)
		}
		s, err := segment.Decode(o.Body)
		if err != nil {
			return nil // the pass over all objects says so
		}
		if s.Epoch < epoch {
			continue // void
		}
		// A void segment may lie between: its sum is the one that the writer knew.
		if before != nil && s.Writer == before.Writer && s.Seq == before.Seq+1 && s.Prev != 0 && s.Prev != before.Sum {
			c.problem(key, "follows a segment with checksum %08x, but the one before it has %08x", s.Prev, before.Sum)
		}
		epoch, before = s.Epoch, s
		if _, err := c.state.Apply(s.Meta, s.Frames); err != nil {
			c.problem(key, "cannot be applied: %v", err)
			return nil
		}
	}
}

// nothingBehind looks for segments behind the end of the log.
func (c *checker) nothingBehind(ctx context.Context, end string) error {
	behind, err := c.store.List(ctx, shapelog.LogPrefix, end, 1)
	if err != nil {
		return fmt.Errorf("list the log: %w", err)
	}
	if len(behind) > 0 {
		c.problem(end, "is missing: the log goes on with %s", behind[0].Key)
	}
	return nil
}

// expectShape notes what a shape's bases and log refer to.
func (c *checker) expectShape(s *catalog.Shape) {
	pages := func(h shape.Handle, n uint32) {
		for p := range n {
			c.expect[h.PageKey(p)] = append(c.expect[h.PageKey(p)], expectation{id: s.ID, isPage: true, lastPage: p == n-1})
		}
	}
	if s.Base != nil && s.Trimmed.IsBefore() {
		pages(s.Handle(), s.Base.Pages)
	}
	for _, r := range s.Rebases {
		pages(shape.Handle{Shape: s.ID, Base: r.Gen}, r.Pages)
	}
	for _, x := range c.state.Extents(s.ID) {
		key := shapelog.SegmentKey(x.Seq)
		if x.Pack != nil {
			key = x.Pack.Key()
		}
		c.expect[key] = append(c.expect[key], expectation{id: s.ID, first: x.First, last: x.Last})
	}
}

// object verifies one object.
func (c *checker) object(ctx context.Context, info object.Info) error {
	kind := KindOf(info.Key)
	n := c.result.Kinds[kind]
	c.result.Kinds[kind] = Count{n.Objects + 1, n.Bytes + info.Size}
	expected := c.expect[info.Key]
	delete(c.expect, info.Key)
	o, err := c.get(ctx, info.Key)
	if err != nil {
		return err
	}
	if o == nil {
		if len(expected) > 0 {
			c.problem(info.Key, "was there and is missing now, although the log refers to it")
		}
		return nil
	}
	if err := verify(kind, info.Key, o.Body, expected); err != nil {
		c.problem(info.Key, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}
