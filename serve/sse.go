package serve

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/params"
)

var keepAlive = []byte(": keep-alive\n\n")

// stream is one SSE answer. It goes on from batch to batch until its time is over.
type stream struct {
	s       *Server
	w       http.ResponseWriter
	control *http.ResponseController
	end     *time.Timer // of the stream
	silence *time.Timer // until the next keep-alive
}

// stream answers q by SSE, beginning with v. Until the headers are sent, an error is an ordinary answer.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, q *params.Request, v *view) error {
	var first *body.Shared
	var data []byte
	if v.isPage || v.hasEntries() {
		first = s.shelf.Take(v.key(true), 1)
		var err error
		if data, err = s.fill(r.Context(), v, first, true); err != nil {
			s.shelf.Give(first)
			return err
		}
	}
	s.setHeaders(w.Header(), q, v, http.StatusOK, r.Method)
	w.Header().Set("Content-Type", contentEvents)
	w.Header().Set("Connection", "keep-alive")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	st := &stream{
		s: s, w: w, control: http.NewResponseController(w),
		end: time.NewTimer(s.cfg.SSETimeout), silence: time.NewTimer(s.cfg.SSEKeepAlive),
	}
	defer st.end.Stop()
	defer st.silence.Stop()
	defer s.watch()()
	err := st.flush()
	if first != nil {
		if err == nil {
			err = st.batch(v, data)
		}
		s.shelf.Give(first)
	}
	if r.Method == http.MethodHead {
		return nil
	}
	// From here on the stream just ends: whatever is wrong, the client's next request is told.
	for err == nil {
		v, err = st.next(r.Context(), v)
	}
	return nil
}

var errStreamEnd = errors.New("stream ends")

// batch sends the frames of v, and after the last of them that everything was sent.
func (st *stream) batch(v *view, frames []byte) error {
	if err := write(st.w, frames); err != nil {
		return err
	}
	if v.upToDate {
		// One more than the commit's LSN: the client asks again from <this>_0, which must lie behind all operations
		// of the transaction. No other commit record can begin one byte after this one.
		tail := shape.AppendUpToDate([]byte("data: "), pg.LSN(v.plan.End.Tx)+1)
		if err := write(st.w, append(tail, "\n\n"...)); err != nil {
			return err
		}
	}
	return st.flush()
}

// flush sends what was written, after which the stream may be silent for as long as it likes.
func (st *stream) flush() error {
	st.silence.Reset(st.s.cfg.SSEKeepAlive)
	if err := st.control.Flush(); err != nil {
		return err
	}
	if err := st.control.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// next sends the batch behind last, waiting for it if need be, and returns the view that was sent last.
func (st *stream) next(ctx context.Context, last *view) (*view, error) {
	s := st.s
	if err := st.over(ctx); err != nil {
		return nil, err
	}
	v, what := s.look(last.at, last.end)
	if what != inBounds {
		return nil, errStreamEnd
	}
	if v.isPage || v.hasEntries() {
		b := s.shelf.Take(v.key(true), 1)
		defer s.shelf.Give(b)
		return st.send(ctx, last, v, b)
	}
	g := s.waits.join(v, true)
	if g == nil {
		return last, nil
	}
	var err error
	select {
	case <-g.woken:
	case <-st.silence.C:
		if err = write(st.w, keepAlive); err == nil {
			err = st.flush()
		}
	case <-st.end.C:
		err = errStreamEnd
	case <-s.draining:
		err = errStreamEnd
	case <-ctx.Done():
		err = errStreamEnd
	}
	if !s.waits.leave(g) {
		return last, err
	}
	if g.view == nil {
		return nil, errStreamEnd
	}
	defer s.shelf.Give(g.body)
	if err != nil {
		return nil, err
	}
	return st.send(ctx, last, g.view, g.body)
}

// over returns an error if the stream has to end even though there is more to send.
func (st *stream) over(ctx context.Context) error {
	select {
	case <-st.end.C:
		return errStreamEnd
	case <-st.s.draining:
		return errStreamEnd
	default:
		return ctx.Err()
	}
}

// send sends v, which follows last, and returns it; or last, if the page that v would be is not there.
func (st *stream) send(ctx context.Context, last, v *view, b *body.Shared) (*view, error) {
	frames, err := st.s.fill(ctx, v, b, true)
	if errors.Is(err, body.ErrNoPage) && v.plan.Base == nil {
		return last, st.s.awaitPage(ctx, v.at, v.page)
	} else if err != nil {
		return nil, err
	}
	return v, st.batch(v, frames)
}
