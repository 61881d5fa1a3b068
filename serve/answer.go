package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/params"
)

const (
	// pageTimeout is how long a request waits for the next page of a base that is being written.
	pageTimeout  = 45 * time.Second
	pagePollMax  = 100 * time.Millisecond
	pageSlow     = "Snapshot query took too long to return data. Please try again."
	retryPage    = 10               // seconds
	pagePollFrom = time.Millisecond // where the store names no ProbeInterval

	// A client must take each part of an answer within the time limit.
	writePartBytes = 256 << 10
	writeTimeout   = 30 * time.Second
)

// serveShape answers a valid request for a shape's log.
func (s *Server) serveShape(w http.ResponseWriter, r *http.Request, q *params.Request, p *permit) error {
	ctx := r.Context()
	if !q.Live {
		if err := s.fresh(ctx); err != nil {
			return err
		}
	}
	h, err := s.identify(ctx, q)
	if err != nil {
		return err
	}
	p.settle()
	if q.Offset.IsNow() {
		v, err := s.now(ctx, h, q)
		if err != nil {
			return err
		}
		return s.answer(w, r, q, v)
	}
	for {
		v, err := s.viewOf(ctx, h, q)
		switch caughtUp := err == nil && !v.isPage && !v.hasEntries(); {
		case err != nil:
			return err
		case q.SSE:
			err = s.stream(w, r, q, v)
		case q.Live && caughtUp:
			return s.park(w, r, q, v)
		case matches(r, v.etag(q)):
			s.setHeaders(w.Header(), q, v, http.StatusNotModified, r.Method)
			w.WriteHeader(http.StatusNotModified)
			return nil
		default:
			err = s.answer(w, r, q, v)
		}
		if !errors.Is(err, body.ErrNoPage) || v.plan.Base != nil {
			return err
		}
		if err := s.awaitPage(ctx, h, v.page); err != nil {
			return err
		}
	}
}

// answer sends v. After an error nothing has been sent.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, q *params.Request, v *view) error {
	if !v.isPage && !v.hasEntries() {
		s.send(w, r, q, v, nil)
		return nil
	}
	b := s.shelf.Take(v.key(false), 1)
	defer s.shelf.Give(b)
	return s.answerWith(w, r, q, v, b)
}

// answerWith sends v, whose page or entries are b.
func (s *Server) answerWith(w http.ResponseWriter, r *http.Request, q *params.Request, v *view, b *body.Shared) error {
	data, err := s.fill(r.Context(), v, b, false)
	if err == nil {
		s.send(w, r, q, v, data)
	}
	return err
}

// send sends v with its page, or the array that its entries begin.
func (s *Server) send(w http.ResponseWriter, r *http.Request, q *params.Request, v *view, data []byte) {
	s.setHeaders(w.Header(), q, v, http.StatusOK, r.Method)
	if v.isPage {
		respond(w, http.StatusOK, data)
		return
	}
	tail := make([]byte, 0, 96)
	switch {
	case len(data) == 0:
		tail = append(tail, '[')
	case v.upToDate:
		tail = append(tail, ',')
	}
	if v.upToDate {
		tail = shape.AppendUpToDate(tail, v.seen(q.Live))
	}
	respond(w, http.StatusOK, data, append(tail, ']'))
}

// seen is the LSN up to which the client has everything once it has read v to the end (protocol reference, 5.6).
func (v *view) seen(live bool) pg.LSN {
	if live && !v.quiet {
		return pg.LSN(v.plan.End.Tx)
	}
	return max(v.plan.Visible, pg.LSN(v.plan.End.Tx))
}

// respond sends the parts of a body whose headers are set.
func respond(w http.ResponseWriter, status int, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.WriteHeader(status)
	for _, p := range parts {
		if write(w, p) != nil {
			return // the client is gone
		}
	}
}

// write sends b, and gives up on a client that does not take it.
func write(w http.ResponseWriter, b []byte) error {
	control := http.NewResponseController(w)
	for len(b) > 0 {
		part := b[:min(len(b), writePartBytes)]
		// Not every ResponseWriter has deadlines; then it is the server's business.
		err := control.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
		b = b[len(part):]
	}
	return nil
}

// awaitPage waits until page n of the base of h is there, or the base is known to end before it. Those who wait for
// the same page share one probe.
func (s *Server) awaitPage(ctx context.Context, h shape.Handle, n uint32) error {
	result := s.pageWaits.DoChan(h.PageKey(n), func() (any, error) {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageTimeout)
		defer cancel()
		return nil, s.watchPage(long, h, n)
	})
	select {
	case r := <-result:
		return r.Err
	case <-s.draining:
		return errDraining
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) watchPage(ctx context.Context, h shape.Handle, n uint32) error {
	defer s.watch()()
	pause := max(s.cfg.Store.Caps().ProbeInterval, pagePollFrom)
	for {
		beat := s.pulse.Next()
		if p, ok := s.state.Plan(h, shape.SnapshotEnd); !ok || p.Behind || p.Base != nil {
			return nil // the next look tells which
		}
		_, err := s.cfg.Store.Get(ctx, h.PageKey(n), object.Range{Length: 1})
		if err == nil {
			return nil
		} else if ctx.Err() == nil && !errors.Is(err, object.ErrNotFound) {
			return storeError{fmt.Errorf("probe page: %w", err)}
		}
		probe := time.NewTimer(pause)
		select {
		case <-beat:
		case <-probe.C:
			pause = min(2*pause, pagePollMax)
		case <-s.draining:
		case <-ctx.Done():
		}
		probe.Stop()
		select {
		case <-s.draining:
			return errDraining
		case <-ctx.Done():
			return unavailable(retryPage, pageSlow)
		default:
		}
	}
}
