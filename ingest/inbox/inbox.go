// Package inbox answers what serve processes that share nothing with ingest but the bucket leave there: requests for
// shapes, under requests/. It looks for them again and again; while a serve process has the feed, and so asks by HTTP,
// it looks seldom, and only when the log has grown, so that an idle system asks the bucket nothing (design, R7).
package inbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	requestsAtATime = 64              // requests being answered
	answerKept      = 3 * time.Second // how long a refusal stays for its askers to read
)

// Shapes is what makes and ends shapes. Its errors are *shape.Refusal, or the context's.
type Shapes interface {
	Open(ctx context.Context, d shape.Definition) (shape.Handle, error)
	Drop(ctx context.Context, h shape.Handle) error
}

// Config is what requests are answered with.
type Config struct {
	Store    object.Store
	Shapes   Shapes
	Interval time.Duration // between looks

	// Active reports whether this process is the one that answers.
	Active func() bool
	// Rest reports that those who might ask have another way to, and that nothing else goes on either.
	Rest func() bool

	Log *slog.Logger
}

type inbox struct {
	cfg Config

	mu       sync.Mutex
	underway map[string]bool      // being answered
	refused  map[string]time.Time // answered by a refusal, and when
}

// Watch answers requests until ctx ends.
func Watch(ctx context.Context, cfg Config) {
	q := &inbox{cfg: cfg, underway: make(map[string]bool), refused: make(map[string]time.Time)}
	var group errgroup.Group
	group.SetLimit(requestsAtATime)
	defer func() { _ = group.Wait() }() // each logs its own trouble
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !cfg.Active() || cfg.Rest() {
			continue
		}
		found, err := cfg.Store.List(ctx, catalog.RequestsPrefix, "", 0)
		if err != nil {
			if ctx.Err() == nil {
				cfg.Log.Warn("list requests", "err", err)
			}
			continue
		}
		q.prune(found)
		for _, f := range found {
			if !q.start(f.Key) {
				continue
			}
			if !group.TryGo(func() error { q.handle(ctx, f.Key); return nil }) {
				q.end(f.Key)
			}
		}
	}
}

// start reports whether nobody is busy with the request yet.
func (q *inbox) start(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.underway[key] {
		return false
	}
	q.underway[key] = true
	return true
}

// stale reports whether a refusal has been lying there for its askers to read for long enough.
func (q *inbox) stale(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.refused[key]
	if !ok { // another ingest's
		q.refused[key] = time.Now()
	}
	return ok && time.Since(at) > answerKept
}

func (q *inbox) end(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.underway, key)
}

func (q *inbox) forget(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.refused, key)
}

// prune forgets the refusals that their askers have taken away.
func (q *inbox) prune(found []object.Info) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key := range q.refused {
		if !slices.ContainsFunc(found, func(i object.Info) bool { return i.Key == key }) {
			delete(q.refused, key)
		}
	}
}

func (q *inbox) handle(ctx context.Context, key string) {
	defer q.end(key)
	if err := q.answer(ctx, key); err != nil && ctx.Err() == nil {
		q.cfg.Log.Warn("answer request", "request", key, "err", err)
	}
}

// answer grants or refuses a request, or clears away a refusal that nobody has taken.
func (q *inbox) answer(ctx context.Context, key string) error {
	store := q.cfg.Store
	r, err := catalog.GetRequest(ctx, store, key)
	if errors.Is(err, object.ErrNotFound) {
		return nil
	}
	if err != nil {
		return errors.Join(err, store.Delete(ctx, key))
	}
	if r.Answer != nil {
		if !q.stale(key) {
			return nil
		}
		q.forget(key)
		return store.Delete(ctx, key)
	}
	q.forget(key) // a refusal of an earlier request of this name
	if r.Drop != nil {
		err = q.cfg.Shapes.Drop(ctx, *r.Drop)
	} else {
		_, err = q.cfg.Shapes.Open(ctx, *r.Open)
	}
	if err == nil {
		return store.Delete(ctx, key)
	}
	var why *shape.Refusal
	if !errors.As(err, &why) {
		return err
	}
	return r.Refuse(ctx, store, why)
}
