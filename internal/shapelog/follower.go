package shapelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
)

const (
	silence       = 10 * time.Second // after which probing slows down
	probeSlowest  = 500 * time.Millisecond
	probeInterval = 20 * time.Millisecond // where the options do not say
)

// FollowerOptions are what a follower's owner may want.
type FollowerOptions struct {
	ProbeInterval time.Duration // between probes while somebody waits; 0 means 20 ms

	// Waiting reports whether somebody waits for news. While nobody does, the log is not probed unless Wake or Sync
	// is called. nil means that nobody ever does.
	Waiting func() bool

	rules rules
}

// Follower reads the log as it grows, by asking for the next name. It probes while somebody waits and when it is told
// to, and else not at all.
type Follower struct {
	store object.Reader
	r     Recovery
	opts  FollowerOptions
	wake  chan struct{} // holds one token
	turn  chan struct{} // holds one token; who has it reads

	started atomic.Uint64 // rounds begun

	// These belong to who has the turn.
	next   uint64
	epoch  uint64 // highest seen
	loaded bool
	empty  stopwatch // since before slot next, or one below it, was found to be still empty; zero if never

	mu        sync.Mutex
	completed uint64    // the highest round that has ended well
	failing   time.Time // since when rounds fail; zero if the last did not
	err       error     // of the last round
}

// OpenFollower reads the log up to its tail into r. The error is ErrNoLog if there is no log yet.
func OpenFollower(ctx context.Context, store object.Reader, r Recovery, opts FollowerOptions) (*Follower, error) {
	if opts.ProbeInterval == 0 {
		opts.ProbeInterval = probeInterval
	}
	f := &Follower{store: store, r: r, opts: opts, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	for at := uint64(0); ; at = f.next {
		err := patiently(ctx, func() error { return f.Sync(ctx) })
		if err == nil {
			return f, nil
		}
		if f.next == at || ctx.Err() != nil {
			return nil, err
		}
	}
}

// Wake asks for a probe now: something was stored, or somebody began to wait.
func (f *Follower) Wake() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends or the log cannot be read.
func (f *Follower) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause, news := f.opts.ProbeInterval, startWatch()
	var failing backoff
	for {
		select {
		case <-timer.C:
		case <-f.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		grew, err := f.round(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, segment.ErrVersion), errors.Is(err, ErrFormat), errors.Is(err, ErrNoLog):
			return err
		case err != nil:
			if werr := failing.wait(ctx); werr != nil {
				return werr
			}
			f.Wake()
			continue
		}
		failing = backoff{}
		if grew {
			pause, news = f.opts.ProbeInterval, startWatch()
		} else if news.elapsed() > silence {
			pause = min(2*pause, max(probeSlowest, f.opts.ProbeInterval))
		}
		if f.opts.Waiting != nil && f.opts.Waiting() {
			timer.Reset(pause)
		} else {
			timer.Stop()
		}
	}
}

// Sync returns once everything that was in the bucket when it was called has been applied. Calls at the same time
// share the work.
func (f *Follower) Sync(ctx context.Context) error {
	want := f.started.Load() + 1 // a round that is under way may have passed what we want to see
	select {
	case <-f.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.turn <- struct{}{} }()
	f.mu.Lock()
	done := f.completed >= want
	f.mu.Unlock()
	if done {
		return nil
	}
	_, err := f.read(ctx)
	return err
}

func (f *Follower) round(ctx context.Context) (grew bool, err error) {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { f.turn <- struct{}{} }()
	return f.read(ctx)
}

// Push tells the follower of segment seq, which is durable, and of a writer of that epoch: it came by another way than
// the store. If it is the next, apply is called, alone, and says whether it has been applied; else the follower has it
// already, or misses one before it. The error is apply's, and the follower then starts from the newest checkpoint.
func (f *Follower) Push(ctx context.Context, seq, epoch uint64, apply func() (bool, error)) error {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.turn <- struct{}{} }()
	if !f.loaded || seq != f.next || epoch < f.epoch {
		return nil
	}
	done, err := apply()
	if err != nil {
		f.loaded = false
		return fmt.Errorf("apply segment %d: %w", seq, err)
	}
	if done {
		f.next, f.epoch = seq+1, epoch
	}
	return nil
}

// Alone calls use while nothing is read or applied, with the next segment and the highest epoch seen; not if the log
// has to be loaded anew.
func (f *Follower) Alone(ctx context.Context, use func(next, epoch uint64)) error {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.turn <- struct{}{} }()
	if f.loaded {
		use(f.next, f.epoch)
	}
	return nil
}

// Stalled reports since when, and why, the log cannot be read; a nil error if all goes well.
func (f *Follower) Stalled() (since time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing, f.err
}

// read applies what there is. The caller has the turn.
func (f *Follower) read(ctx context.Context) (grew bool, err error) {
	round := f.started.Add(1)
	grew, err = f.readToEnd(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.completed, f.failing, f.err = max(f.completed, round), time.Time{}, nil
	case ctx.Err() == nil: // else it is the caller's doing
		f.err = err
		if f.failing.IsZero() {
			f.failing = time.Now()
		}
	}
	return grew, err
}

// readToEnd applies the slots up to the first that is still empty.
func (f *Follower) readToEnd(ctx context.Context) (grew bool, err error) {
	if !f.loaded {
		if err := f.load(ctx); err != nil {
			return false, err
		}
	}
	ahead := 1 // most often there is nothing, or one
	for {
		asked := startWatch()
		if f.empty.elapsed() > freshFor {
			ahead = aheadMax
		}
		found, ended, err := getSegments(ctx, f.store, f.next, ahead)
		if err != nil {
			return grew, err
		}
		// Who has not seen lately that the slot was still empty looks at the floor before reading on (rule 6): it may
		// have been collected, and be free, or be written again by a sleeper.
		if f.empty.elapsed() > freshFor && !(f.opts.rules.noFloorCheck && len(found) > 0) {
			passed, err := f.lookAtFloor(ctx)
			if err != nil {
				return grew, err
			}
			if passed {
				continue
			}
		}
		for _, s := range found {
			if err := f.apply(s); err != nil {
				return grew, err
			}
			grew = true
		}
		if ended {
			f.empty = asked
			return grew, nil
		}
		ahead = min(2*ahead, aheadMax)
	}
}

func (f *Follower) apply(s *segment.Segment) error {
	if s.Epoch >= f.epoch {
		if err := f.r.Apply(s); err != nil {
			f.loaded = false // what it holds now is anybody's guess
			return fmt.Errorf("apply segment %d: %w", s.Seq, err)
		}
		f.epoch = s.Epoch
	}
	f.next++
	return nil
}

// load starts from the newest checkpoint.
func (f *Follower) load(ctx context.Context) error {
	c, _, err := ReadControl(ctx, f.store)
	if err != nil {
		return err
	}
	if err := f.r.Load(ctx, c.Checkpoint); err != nil {
		return fmt.Errorf("load the checkpoint: %w", err)
	}
	f.next, f.epoch, f.loaded, f.empty = c.Checkpoint.Seq+1, c.Checkpoint.Epoch, true, stopwatch{}
	return nil
}

// lookAtFloor starts over from the newest checkpoint if the floor has passed the next slot.
func (f *Follower) lookAtFloor(ctx context.Context) (passed bool, err error) {
	c, _, err := ReadControl(ctx, f.store)
	if err != nil || c.Floor <= f.next {
		return false, err
	}
	f.loaded = false
	return true, f.load(ctx)
}
