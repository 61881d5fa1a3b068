package serve

import (
	"context"
	"errors"
	"fmt"

	"time"

	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// Run follows the log until ctx ends. When the log cannot be opened or read it tries again, and meanwhile requests
// that must be current get 503.
func (s *Server) Run(ctx context.Context) error {
	pause := reopenMin
	for {
		began := time.Now()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > reopenMax {
			pause = reopenMin
		}
		if !errors.Is(err, shapelog.ErrNoLog) {
			s.log.Error("the log cannot be followed; trying again", "pause", pause, "err", err)
		}
		retry := time.NewTimer(pause)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil
		}
		pause = min(2*pause, reopenMax)
	}
}

// follow opens the log and follows it until ctx ends or an error.
func (s *Server) follow(ctx context.Context) error {
	f, err := shapelog.OpenFollower(ctx, s.cfg.Store, recovery{s}, shapelog.FollowerOptions{
		ProbeInterval: s.cfg.Store.Caps().ProbeInterval,
		Waiting:       func() bool { return s.watchers.Load() > 0 },
	})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	s.follower.Store(f)
	defer s.follower.Store(nil)
	s.loadOnce.Do(func() { close(s.loaded) })
	return f.Run(ctx)
}

// Wake tells that the log may have grown, so that nobody has to wait for the next probe.
func (s *Server) Wake() {
	if f := s.follower.Load(); f != nil {
		f.Wake()
	}
}

// sync makes the state as new as the bucket is.
func (s *Server) sync(ctx context.Context) error {
	f := s.follower.Load()
	if f == nil {
		return errLoading
	}
	if err := f.Sync(ctx); err != nil {
		return storeError{err}
	}
	return nil
}

// watch says that somebody waits for the log to grow, until the function that it returns is called.
func (s *Server) watch() (done func()) {
	if s.watchers.Add(1) == 1 {
		s.Wake()
	}
	return func() { s.watchers.Add(-1) }
}

// recovery folds the log into the server's state. It is shapelog's Recovery.
type recovery struct{ s *Server }

// Load takes in a state that is not the one before and a segment: all that was assumed may be wrong.
func (r recovery) Load(ctx context.Context, c shapelog.Checkpoint) error {
	if err := r.s.state.Load(ctx, r.s.cfg.Store, c.Generation, c.Shards); err != nil {
		return err
	}
	r.s.waits.wakeAll()
	r.s.pulse.Beat()
	return nil
}

// Apply takes in the next segment, and wakes whom it concerns.
func (r recovery) Apply(seg *segment.Segment) error {
	s := r.s
	s.source.Keep(seg)
	delta, err := s.state.Apply(seg.Meta, seg.Frames)
	if err != nil {
		return err
	}
	for _, d := range delta.Dropped {
		if d.Reason != nil {
			s.refusals.Put(d.Info.ID, d.Reason, 1)
		}
		s.waits.wake(d.Info.ID)
	}
	for _, id := range delta.Grown {
		s.waits.wake(id)
	}
	s.pulse.Beat()
	return nil
}
