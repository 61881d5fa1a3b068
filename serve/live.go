package serve

import (
	"net/http"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/params"
)

// groupKey names what parked requests wait for: entries of a log behind an offset.
type groupKey struct {
	handle shape.Handle
	after  shape.Offset
	sse    bool
}

// group is the parked requests that wait for the same. When it comes, all get one view and one body.
type group struct {
	key     groupKey
	members int // guarded by waits.mu
	woken   chan struct{}

	// Set before woken is closed, and constant from then on. Each member gives the body back once.
	view *view // nil: the shape is gone
	body *body.Shared
}

// waits holds the groups, by shape. A shape that nobody waits for has nothing here (R7).
type waits struct {
	shelf *body.Shelf
	look  func(shape.Handle, shape.Offset) (*view, verdict)

	mu     sync.Mutex
	groups map[shape.ID]map[groupKey]*group
}

// join parks a request behind the offset of v, which has no entries: unless it has some by now, or the shape is
// gone. Then there is no group, and the request must look again.
func (w *waits) join(v *view, sse bool) *group {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Looking under the lock leaves no gap: what is applied later finds the group.
	if now, what := w.look(v.at, v.after); what != inBounds || now.hasEntries() {
		return nil
	}
	key := groupKey{v.at, v.after, sse}
	byKey := w.groups[v.at.Shape]
	if byKey == nil {
		byKey = make(map[groupKey]*group)
		w.groups[v.at.Shape] = byKey
	}
	g := byKey[key]
	if g == nil {
		g = &group{key: key, woken: make(chan struct{})}
		byKey[key] = g
	}
	g.members++
	return g
}

// leave ends the wait of one member, and reports whether the group was woken before that: then the member still has
// the body to give back.
func (w *waits) leave(g *group) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-g.woken:
		return true
	default:
	}
	if g.members--; g.members == 0 {
		w.remove(g)
	}
	return false
}

func (w *waits) remove(g *group) {
	byKey := w.groups[g.key.handle.Shape]
	if delete(byKey, g.key); len(byKey) == 0 {
		delete(w.groups, g.key.handle.Shape)
	}
}

// wake looks again on behalf of all who wait for a shape. It does no I/O: the follower calls it.
func (w *waits) wake(id shape.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, g := range w.groups[id] {
		v, what := w.look(key.handle, key.after)
		if what == shapeGone {
			v = nil
		} else if what == outOfBounds || !v.hasEntries() {
			continue
		}
		if g.view = v; v != nil {
			g.body = w.shelf.Take(v.key(key.sse), g.members)
		}
		w.remove(g)
		close(g.woken)
	}
}

// wakeAll looks again on behalf of everybody.
func (w *waits) wakeAll() {
	w.mu.Lock()
	ids := make([]shape.ID, 0, len(w.groups))
	for id := range w.groups {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for _, id := range ids {
		w.wake(id)
	}
}

// park holds a live request that has read everything, and answers it.
func (s *Server) park(w http.ResponseWriter, r *http.Request, q *params.Request, v *view) error {
	ctx := r.Context()
	defer s.watch()()
	timeout := time.NewTimer(s.cfg.LongPollTimeout)
	defer timeout.Stop()
	for {
		g := s.waits.join(v, false)
		if g == nil {
			var err error
			if v, err = s.viewOf(ctx, v.at, q); err != nil {
				return err
			}
			if v.hasEntries() {
				return s.answer(w, r, q, v)
			}
			continue
		}
		select {
		case <-g.woken:
		case <-timeout.C:
		case <-s.draining:
		case <-ctx.Done():
		}
		if !s.waits.leave(g) {
			return s.answerQuiet(w, r, q, v.at)
		}
		if g.view == nil {
			return s.gone(ctx, v.at, q)
		}
		defer s.shelf.Give(g.body)
		return s.answerWith(w, r, q, g.view, g.body)
	}
}

// answerQuiet answers a live request for which nothing came.
func (s *Server) answerQuiet(w http.ResponseWriter, r *http.Request, q *params.Request, h shape.Handle) error {
	if err := r.Context().Err(); err != nil {
		return err
	}
	if ready, waiting, reason := s.Health(); !ready && !waiting {
		return unavailable(retryDown, reason)
	}
	v, err := s.viewOf(r.Context(), h, q)
	if err != nil {
		return err
	}
	if v.hasEntries() {
		return s.answer(w, r, q, v)
	}
	quiet := *v
	quiet.quiet, quiet.upToDate, quiet.end = true, true, q.Offset
	return s.answer(w, r, q, &quiet)
}
