package ingest

import (
	"context"
	"errors"
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

// requests is the loop that answers what serve processes without a connection to ingest leave in the bucket.
type requests struct {
	s *Service

	mu       sync.Mutex
	underway map[string]bool      // being answered
	refused  map[string]time.Time // answered by a refusal, and when
}

// watchRequests answers requests until ctx ends.
func (s *Service) watchRequests(ctx context.Context) {
	q := &requests{s: s, underway: make(map[string]bool), refused: make(map[string]time.Time)}
	var group errgroup.Group
	group.SetLimit(requestsAtATime)
	defer func() { _ = group.Wait() }() // each logs its own trouble
	ticker := time.NewTicker(s.cfg.RequestsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if s.Status().State != Active {
			continue // whoever is active answers
		}
		found, err := s.cfg.Store.List(ctx, catalog.RequestsPrefix, "", 0)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("list requests", "err", err)
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
func (q *requests) start(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.underway[key] {
		return false
	}
	q.underway[key] = true
	return true
}

// stale reports whether a refusal has been lying there for its askers to read for long enough.
func (q *requests) stale(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.refused[key]
	if !ok { // another ingest's
		q.refused[key] = time.Now()
	}
	return ok && time.Since(at) > answerKept
}

func (q *requests) end(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.underway, key)
}

func (q *requests) forget(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.refused, key)
}

// prune forgets the refusals that their askers have taken away.
func (q *requests) prune(found []object.Info) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for key := range q.refused {
		if !slices.ContainsFunc(found, func(i object.Info) bool { return i.Key == key }) {
			delete(q.refused, key)
		}
	}
}

func (q *requests) handle(ctx context.Context, key string) {
	defer q.end(key)
	if err := q.answer(ctx, key); err != nil && ctx.Err() == nil {
		q.s.log.Warn("answer request", "request", key, "err", err)
	}
}

// answer grants or refuses a request, or clears away a refusal that nobody has taken.
func (q *requests) answer(ctx context.Context, key string) error {
	store := q.s.cfg.Store
	r, err := catalog.GetRequest(ctx, store, key)
	if isNotFound(err) {
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
		err = q.s.Drop(ctx, *r.Drop)
	} else {
		_, err = q.s.Open(ctx, *r.Open)
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
