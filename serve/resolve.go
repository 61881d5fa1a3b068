package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/params"
)

const (
	// openTimeout bounds the finding or creating of a shape, whose askers may all have left.
	openTimeout = 45 * time.Second

	// openTries bounds the shapes that are opened for one request because each was dropped at once.
	openTries = 3

	// handlesMax bounds the definitions whose handle is remembered, refusalsMax the shapes that failed.
	handlesMax  = 1 << 16
	refusalsMax = 1 << 10
)

// Opener finds or creates shapes. Ingest is one; a Requester asks ingest through the bucket.
type Opener interface {
	// Open returns the handle of the shape for d once the shape is in the log. What the client must be told is a
	// *shape.Refusal. d is canonical, and its names are syntactically valid.
	Open(ctx context.Context, d shape.Definition) (shape.Handle, error)

	// Drop ends the shape of h, if it still is there, and returns once the log says so.
	Drop(ctx context.Context, h shape.Handle) error
}

var errNotOpened = unavailable(1, "Failed to create shape, please retry")

// knows reports whether the shape of h is alive, as far as this process has read the log.
func (s *Server) knows(h shape.Handle) bool {
	_, ok := s.newest(h)
	return ok
}

// newest returns the handle that new clients of the shape of h begin with; false if the shape is not alive, as far as
// this process has read the log.
func (s *Server) newest(h shape.Handle) (shape.Handle, bool) {
	p, ok := s.state.Plan(h, shape.SnapshotEnd)
	return p.Newest, ok
}

// knowsText is knows for what a client sent.
func (s *Server) knowsText(text string) bool {
	h, err := shape.ParseHandle(text)
	return err == nil && s.knows(h)
}

// identify returns the handle that answers q: the one it names, if that is of the shape for its definition, else the
// newest. The error is rotated if q names another shape's.
func (s *Server) identify(ctx context.Context, q *params.Request) (shape.Handle, error) {
	named, nerr := shape.ParseHandle(q.Handle)
	if q.Live && nerr == nil {
		if p, ok := s.state.Plan(named, q.Offset); !ok || p.Behind {
			// Another process may be ahead of this one.
			if err := s.sync(ctx); err != nil {
				return shape.Handle{}, err
			}
		}
	}
	h, err := s.resolve(ctx, q.Definition, q.Hash)
	if err != nil || q.Handle == "" {
		return h, err
	}
	if nerr == nil && named.Shape == h.Shape {
		return named, nil
	}
	return shape.Handle{}, rotated(h)
}

// resolve returns the handle of the shape for d, opening it if there is none. Callers that ask at the same time
// share one search, which goes on for the others when one leaves.
func (s *Server) resolve(ctx context.Context, d shape.Definition, hash string) (shape.Handle, error) {
	if h, ok := s.known(hash); ok {
		return h, nil
	}
	result := s.opens.DoChan(hash, func() (any, error) {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
		defer cancel()
		return s.findOrOpen(long, d, hash)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return shape.Handle{}, r.Err
		}
		return r.Val.(shape.Handle), nil
	case <-ctx.Done():
		return shape.Handle{}, ctx.Err()
	}
}

func (s *Server) findOrOpen(ctx context.Context, d shape.Definition, hash string) (shape.Handle, error) {
	h, ok, err := s.find(ctx, d, hash)
	if err != nil || ok {
		return h, err
	}
	for range openTries {
		h, err := s.opener.Open(ctx, d)
		if err != nil {
			return shape.Handle{}, fmt.Errorf("open shape: %w", err)
		}
		if err := s.sync(ctx); err != nil {
			return shape.Handle{}, err
		}
		if newest, ok := s.newest(h); ok {
			s.handles.Put(hash, h, 1)
			return newest, nil
		}
		if why, ok := s.refusals.Get(h.Shape); ok {
			return shape.Handle{}, why
		}
	}
	return shape.Handle{}, errNotOpened
}

// find returns the handle of the shape for d if there is one.
func (s *Server) find(ctx context.Context, d shape.Definition, hash string) (shape.Handle, bool, error) {
	if h, ok := s.known(hash); ok {
		return h, true, nil
	}
	h, err := catalog.GetPointer(ctx, s.cfg.Store, d)
	if errors.Is(err, object.ErrNotFound) {
		return shape.Handle{}, false, nil
	} else if err != nil {
		return shape.Handle{}, false, storeError{err}
	}
	newest, ok := s.newest(h)
	if !ok {
		// The pointer is written after the log, so that what is not there now was dropped.
		if err := s.sync(ctx); err != nil {
			return shape.Handle{}, false, err
		}
		if newest, ok = s.newest(h); !ok {
			return shape.Handle{}, false, nil
		}
	}
	s.handles.Put(hash, h, 1)
	return newest, true, nil
}

// known is find for what this process has found before.
func (s *Server) known(hash string) (shape.Handle, bool) {
	h, ok := s.handles.Get(hash)
	if !ok {
		return shape.Handle{}, false
	}
	return s.newest(h)
}

// gone is why a request for h, which was alive when it came, gets no answer: the reason that the log gave, or a 409
// that names the shape to use instead, if there is one.
func (s *Server) gone(ctx context.Context, h shape.Handle, q *params.Request) error {
	if why, ok := s.refusals.Get(h.Shape); ok {
		return why
	}
	next, _, err := s.find(ctx, q.Definition, q.Hash)
	if err != nil {
		return err
	}
	return rotated(next)
}
