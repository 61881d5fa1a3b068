package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/params"
)

// view is what answers a request at one moment: all of it comes from one Plan, so that neither the offset nor the
// LSN of the answer can be ahead of its body (R5). It is shared, and read only.
type view struct {
	at     shape.Handle
	handle string // at, as headers have it
	plan   catalog.Plan

	// Either a page of the base, which is there for sure only if plan.Base is known, or the log behind after.
	isPage bool
	page   uint32
	after  shape.Offset

	end      shape.Offset // the next offset to ask for
	upToDate bool
	quiet    bool // there are no changes, by nature
}

// verdict is what to do with a view.
type verdict int

const (
	shapeGone   verdict = iota // there is no view: the shape is gone, or what follows the offset
	outOfBounds                // the log has not reached the offset yet
	inBounds
)

// look returns the view of the log of h behind o, which is not "now".
func (s *Server) look(h shape.Handle, o shape.Offset) (*view, verdict) {
	p, ok := s.state.Plan(h, o)
	if !ok || p.Behind {
		return nil, shapeGone
	}
	after := p.After
	v := &view{at: h, handle: h.String(), plan: p, after: after}
	if page, ok := pageBehind(o); ok && (p.Base == nil || page < p.Base.Pages || o.IsBefore()) {
		v.isPage, v.page, v.end = true, page, shape.Page(page)
		return v, inBounds
	}
	v.end = p.End
	if after.Compare(p.Last) > 0 {
		if !reached(after, p.Visible) {
			return v, outOfBounds
		}
		v.end = after // an answer never sends a client back
	}
	v.upToDate = v.end.Compare(p.Last) >= 0
	return v, inBounds
}

// reached reports whether nothing of the log can stand at or before o, which is behind a shape's last entry, but
// unread: all transactions up to visible are complete, and the next commit record lies more than one byte behind it.
// SSE clients ask for such offsets (protocol reference, section 10).
func reached(o shape.Offset, visible pg.LSN) bool { return o.Tx <= uint64(visible)+1 }

// pageBehind returns the page that follows o, if o is in front of or inside the snapshot part.
func pageBehind(o shape.Offset) (uint32, bool) {
	if o.IsBefore() {
		return 0, true
	}
	if !o.InSnapshot() || o.Op >= 1<<32-1 { // 0_inf, or behind what can be numbered
		return 0, false
	}
	return uint32(o.Op) + 1, true
}

// hasEntries reports whether there is something of the log behind the offset.
func (v *view) hasEntries() bool { return v.plan.End.Compare(v.after) > 0 }

// key names the view's entries or page on the shelf.
func (v *view) key(sse bool) body.Key {
	if v.isPage {
		return body.Key{Handle: v.at, Page: v.page, IsPage: true, SSE: sse}
	}
	return body.Key{Handle: v.at, After: v.after, End: v.plan.End, SSE: sse}
}

// fill returns the bytes of b, which v's key names.
func (s *Server) fill(ctx context.Context, v *view, b *body.Shared, sse bool) ([]byte, error) {
	data, err := s.shelf.Fill(ctx, b, func(ctx context.Context) ([]byte, error) {
		if v.isPage {
			return s.source.Page(ctx, v.at, v.page, sse)
		}
		return s.entries(ctx, v, sse)
	})
	if err != nil {
		err = storeError{err}
	}
	return data, err
}

// entries renders what v shows of the log. What has been packed since v was made is looked for again where it lies now.
func (s *Server) entries(ctx context.Context, v *view, sse bool) ([]byte, error) {
	data, err := s.source.Entries(ctx, &v.plan, v.after, sse)
	if !errors.Is(err, body.ErrCollected) {
		return data, err
	}
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	p, err := s.reaches(ctx, v)
	if err != nil {
		return nil, err
	}
	p.End = v.plan.End // what v promises
	return s.source.Entries(ctx, p, v.after, sse)
}

// reaches returns the plan that has all that v promises. That may have to come again: the writer whose frames were shown
// before they were durable has died, and the next one tells the same (R3, R4).
func (s *Server) reaches(ctx context.Context, v *view) (*catalog.Plan, error) {
	defer s.watch()()
	limit := time.NewTimer(againTimeout)
	defer limit.Stop()
	for {
		beat := s.pulse.Next()
		p, ok := s.state.Plan(v.at, v.after)
		switch {
		case !ok || p.Behind:
			return nil, fmt.Errorf("%s: %w", v.handle, body.ErrCollected) // the client's next request is told
		case p.Last.Compare(v.plan.End) >= 0:
			return &p, nil
		}
		select {
		case <-beat:
		case <-limit.C:
			return nil, unavailable(retryStart, textLoading)
		case <-s.draining:
			return nil, errDraining
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// againTimeout is how long an answer waits for what has to come again.
const againTimeout = 10 * time.Second

const (
	textOutOfBounds = "out of bounds for this shape"
	textAgain       = "The log has not reached the offset yet. Please retry."
	retryAgain      = 1 // seconds

	// shownAhead is how much WAL, in bytes, can lie between what a feed has shown and what the bucket has: what ingest
	// reads on without storing is bounded, but most of it may be of tables without shapes.
	shownAhead = 64 << 30
)

// viewOf returns the view that answers q for h. It waits while the offset is out of bounds.
func (s *Server) viewOf(ctx context.Context, h shape.Handle, q *params.Request) (*view, error) {
	v, what := s.look(h, q.Offset)
	if what == outOfBounds {
		var err error
		if v, what, err = s.awaitOffset(ctx, h, q.Offset); err != nil {
			return nil, err
		}
	}
	if what == shapeGone {
		return nil, s.gone(ctx, h, q)
	}
	return v, nil
}

// awaitOffset waits for the log to reach o, which another process has answered before (protocol reference, 8.4).
func (s *Server) awaitOffset(ctx context.Context, h shape.Handle, o shape.Offset) (*view, verdict, error) {
	if err := s.sync(ctx); err != nil {
		return nil, shapeGone, err
	}
	defer s.watch()()
	limit := time.NewTimer(s.cfg.LongPollTimeout / 2)
	defer limit.Stop()
	for {
		beat := s.pulse.Next()
		if v, what := s.look(h, o); what != outOfBounds {
			return v, what, nil
		}
		select {
		case <-beat:
		case <-limit.C:
			p, _ := s.state.Plan(h, shape.SnapshotEnd)
			if o.Tx < uint64(p.Visible)+shownAhead && !s.tail.Certain() {
				return nil, outOfBounds, unavailable(retryAgain, textAgain)
			}
			return nil, outOfBounds, params.Bad("offset", textOutOfBounds)
		case <-s.draining:
			return nil, outOfBounds, errDraining
		case <-ctx.Done():
			return nil, outOfBounds, ctx.Err()
		}
	}
}

// now returns the view that answers offset=now.
func (s *Server) now(ctx context.Context, h shape.Handle, q *params.Request) (*view, error) {
	p, ok := s.state.Plan(h, shape.SnapshotEnd)
	if !ok || p.Behind {
		return nil, s.gone(ctx, h, q)
	}
	return &view{at: h, handle: h.String(), plan: p, after: p.Last, end: p.Last, upToDate: true, quiet: true}, nil
}
