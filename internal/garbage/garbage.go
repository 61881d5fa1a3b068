// Package garbage finds, and deletes, what nothing in a bucket refers to any more: bases and definitions of dropped
// shapes, packs that nobody speaks of, old checkpoints, dead segments, requests that nobody waits for, and what
// attempts that failed have left. It owns what counts as garbage; when to look is its caller's.
//
// The one idea: garbage stays garbage, because no name is ever used again for something else. So it is enough that
// the log, up to some durable place, does not refer to an object, and that the object is too old to be one that is
// just being spoken of.
package garbage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// listMax is how many names are asked for at a time.
const listMax = 1000

// Item is an object that nothing refers to.
type Item struct {
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"` // by the store's clock
	Why      string    `json:"why"`
}

// Finder looks for garbage in one bucket.
type Finder struct {
	store   object.Reader
	control shapelog.Control
	before  time.Time // what was written later is too young
	bases   map[shape.ID]map[uint32]bool
	packs   map[string]bool
	items   []Item
}

// Find returns what neither control nor state, which must be durable, refers to, and what was written before the given
// time by the store's clock. The segments among it come first and ascend.
func Find(ctx context.Context, store object.Reader, state *catalog.State, before time.Time) ([]Item, error) {
	control, _, err := shapelog.ReadControl(ctx, store)
	if err != nil {
		return nil, err
	}
	f := &Finder{
		store: store, control: control, before: before,
		bases: make(map[shape.ID]map[uint32]bool), packs: make(map[string]bool),
	}
	for _, s := range state.Shapes() {
		kept := map[uint32]bool{0: s.Trimmed.IsBefore()}
		for _, r := range s.Rebases {
			kept[r.Gen] = true
		}
		f.bases[s.ID] = kept
	}
	for _, p := range state.Packs() {
		f.packs[p.Key()] = true
	}
	for _, look := range []struct {
		prefix string
		why    func(ctx context.Context, i object.Info) (string, error)
	}{
		{shapelog.LogPrefix, f.segment}, {"catalog/", f.checkpoint}, {catalog.DefinitionsPrefix, f.definition}, {"pack/", f.pack},
		{catalog.RequestsPrefix, f.request}, {"selftest/", f.scratch}, {"shapes/", f.base},
	} {
		if err := f.look(ctx, look.prefix, look.why); err != nil {
			return nil, err
		}
	}
	return f.items, nil
}

// errYoung ends a look: what follows must outlive it.
var errYoung = errors.New("too young")

func (f *Finder) look(ctx context.Context, prefix string, why func(context.Context, object.Info) (string, error)) error {
	for after := ""; ; {
		page, err := f.store.List(ctx, prefix, after, listMax)
		if err != nil {
			return fmt.Errorf("look for garbage: %w", err)
		}
		for _, i := range page {
			young := !i.Modified.Before(f.before)
			if young && prefix == shapelog.LogPrefix {
				return nil // readers rely on a slot outliving those below it
			}
			if young {
				continue
			}
			reason, err := why(ctx, i)
			switch {
			case errors.Is(err, errYoung):
				return nil
			case err != nil:
				return fmt.Errorf("look for garbage: %w", err)
			case reason != "":
				f.items = append(f.items, Item{i.Key, i.Size, i.Modified, reason})
			}
		}
		if len(page) < listMax {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

func (f *Finder) segment(_ context.Context, i object.Info) (string, error) {
	seq, err := shapelog.ParseSegmentKey(i.Key)
	if err != nil {
		return "", nil // not ours
	}
	if seq >= f.control.Floor {
		return "", errYoung
	}
	return "segment below the floor", nil
}

func (f *Finder) checkpoint(_ context.Context, i object.Info) (string, error) {
	generation, _, _ := strings.Cut(strings.TrimPrefix(i.Key, "catalog/"), "/")
	g, err := strconv.ParseUint(generation, 16, 64)
	if err != nil || g == f.control.Checkpoint.Generation {
		return "", nil
	}
	return "checkpoint that is not the newest", nil
}

func (f *Finder) definition(ctx context.Context, i object.Info) (string, error) {
	o, err := f.store.Get(ctx, i.Key, object.Range{})
	if errors.Is(err, object.ErrNotFound) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	var p catalog.Pointer
	if json.Unmarshal(o.Body, &p) != nil || f.bases[p.Handle.Shape] != nil {
		return "", nil
	}
	return "definition of a shape that was dropped", nil
}

func (f *Finder) pack(_ context.Context, i object.Info) (string, error) {
	if f.packs[i.Key] {
		return "", nil
	}
	return "pack that nothing refers to", nil
}

func (f *Finder) request(context.Context, object.Info) (string, error) {
	return "request that nobody waits for", nil
}

func (f *Finder) scratch(context.Context, object.Info) (string, error) {
	return "left by a test of the bucket", nil
}

func (f *Finder) base(_ context.Context, i object.Info) (string, error) {
	parts := strings.Split(i.Key, "/") // shapes/<id>/base/<g>/<page> or shapes/<id>/chunk/<name>
	if len(parts) < 4 {
		return "", nil
	}
	id, err := strconv.ParseUint(parts[1], 16, 64)
	if err != nil {
		return "", nil // not ours
	}
	bases := f.bases[shape.ID(id)]
	switch {
	case bases == nil:
		return "of a shape that was dropped", nil
	case parts[2] == "chunk" && !f.packs[i.Key]:
		return "chunk that nothing refers to", nil
	case parts[2] == "base":
		if gen, err := strconv.ParseUint(parts[3], 16, 32); err == nil && !bases[uint32(gen)] {
			return "base that is no longer kept", nil
		}
	}
	return "", nil
}

// Delete deletes items in their order. It tells progress, unless nil, after each.
func Delete(ctx context.Context, store object.Store, items []Item, progress func(done int)) error {
	for n, i := range items {
		if err := store.Delete(ctx, i.Key); err != nil {
			return fmt.Errorf("delete garbage %s: %w", i.Key, err)
		}
		if progress != nil {
			progress(n + 1)
		}
	}
	return nil
}

// Clock asks the store what time it is, by writing a scratch object.
func Clock(ctx context.Context, store object.Store) (time.Time, error) {
	key := "selftest/" + rand.Text()
	if _, err := store.Put(ctx, key, []byte("what time is it?"), object.Always()); err != nil {
		return time.Time{}, fmt.Errorf("ask the store's clock: %w", err)
	}
	o, err := store.Get(ctx, key, object.Range{})
	if derr := store.Delete(ctx, key); err == nil {
		err = derr
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store's clock: %w", err)
	}
	return o.Modified, nil
}

// Fold returns the state that everything durable in the bucket adds up to.
func Fold(ctx context.Context, store object.Reader) (*catalog.State, error) {
	f := folded{catalog.New(), store}
	if _, err := shapelog.OpenFollower(ctx, store, f, shapelog.FollowerOptions{}); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return f.State, nil
}

// folded is a shapelog.Recovery.
type folded struct {
	*catalog.State
	store object.Reader
}

// Load implements shapelog.Recovery.
func (f folded) Load(ctx context.Context, c shapelog.Checkpoint) error {
	return f.State.Load(ctx, f.store, c.Generation, c.Shards)
}

// Apply implements shapelog.Recovery.
func (f folded) Apply(s *segment.Segment) error {
	_, err := f.State.Apply(s.Meta, s.Frames)
	return err
}
