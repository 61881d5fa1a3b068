package serve

import (
	"context"
	"errors"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/serve/tail"
)

// Run follows the log until ctx ends. When the log cannot be opened or read it tries again, and meanwhile requests
// that must be current get 503.
func (s *Server) Run(ctx context.Context) error { return s.tail.Run(ctx) }

// Wake tells that the log may have grown, so that nobody has to wait for the next probe.
func (s *Server) Wake() { s.tail.Wake() }

// sync makes the state as new as the bucket is.
func (s *Server) sync(ctx context.Context) error { return tailError(s.tail.Sync(ctx)) }

// fresh makes the state as new as the bucket is, or takes the feed's word that it is.
func (s *Server) fresh(ctx context.Context) error { return tailError(s.tail.Fresh(ctx)) }

func tailError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tail.ErrNotOpen):
		return errLoading
	}
	return storeError{err}
}

// watch says that somebody waits for the log to grow, until the function that it returns is called.
func (s *Server) watch() (done func()) {
	if s.watchers.Add(1) == 1 {
		s.Wake()
	}
	return func() { s.watchers.Add(-1) }
}

// changed wakes whom a change of the catalogue concerns.
func (s *Server) changed(d *catalog.Delta, all bool) {
	if all {
		s.waits.wakeAll()
	}
	for _, drop := range d.Dropped {
		if drop.Reason != nil {
			s.refusals.Put(drop.Info.ID, drop.Reason, 1)
		}
		s.waits.wake(drop.Info.ID)
	}
	for _, id := range d.Grown {
		s.waits.wake(id)
	}
	s.pulse.Beat()
}
