// Package tail keeps a process' catalogue in step with the log: by the feed from ingest while there is one, else by
// asking the bucket for the next name. It owns what is applied when, early or durable, and the way from one source to
// the other and back. What a change of the catalogue means for requests is its owner's business.
//
// The one idea: the bucket's follower is always there and always right. The feed only spares it the asking, and shows
// some frames before their time; whenever the two do not meet, what was early is taken back and the follower reads on.
package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shapelog"
)

const (
	// The pause before the log is opened again.
	reopenMin = 10 * time.Millisecond
	reopenMax = time.Second

	// The pause before the feed is asked for again.
	resubscribeMin = 50 * time.Millisecond
	resubscribeMax = 2 * time.Second

	// freshFor is how long after the last event of the feed the catalogue counts as current. Without news the feed has
	// one a second.
	freshFor = 3 * time.Second
)

// certainAfter is how long a feed must last before an offset that the log has not reached is an error of its asker. A
// writer tells again within that time what the one before it had shown.
const certainAfter = 30 * time.Second

// ErrNotOpen means that the log has not been read yet, or cannot be.
var ErrNotOpen = errors.New("the log is not open")

// Feed is where frames come from before they are in the bucket.
type Feed interface {
	Subscribe(ctx context.Context) (feed.Stream, error)
}

// Bodies is told of the bytes that are at hand.
type Bodies interface {
	Keep(*segment.Segment)
	Live(seq uint64, f *segment.Frame) // a frame of a segment that is not durable
	Settle(seq uint64)                 // the segment is durable: what Live brought of it may be forgotten at will
	Void()                             // what Live brought, and is not settled, will never be durable
}

// Config is what a Tail works on.
type Config struct {
	Store  object.Store
	State  *catalog.State
	Bodies Bodies
	Feed   Feed // nil: the bucket alone
	Log    *slog.Logger

	// Waiting reports whether somebody waits for news.
	Waiting func() bool
	// Changed is told of every change, in order, and must not block. all says that anything may have changed.
	Changed func(d *catalog.Delta, all bool)
}

// Tail follows one log. Run must run for the others to mean anything.
type Tail struct {
	cfg      Config
	follower atomic.Pointer[shapelog.Follower] // nil while the log is not open
	loaded   chan struct{}                     // closed once the log was read for the first time
	isLoaded atomic.Bool
	heard    atomic.Int64 // when the feed last said anything, Unix nanoseconds; 0 while there is none
	met      atomic.Int64 // since when it does

	early early // guarded by the follower's turn
}

// New returns a tail of what cfg says. It does no I/O.
func New(cfg Config) *Tail { return &Tail{cfg: cfg, loaded: make(chan struct{})} }

// Loaded is closed once the log was read for the first time.
func (t *Tail) Loaded() <-chan struct{} { return t.loaded }

// Open reports whether the log is open now.
func (t *Tail) Open() bool { return t.follower.Load() != nil }

// Run follows the log until ctx ends. When the log cannot be opened or read it tries again.
func (t *Tail) Run(ctx context.Context) error {
	pause := reopenMin
	for {
		began := time.Now()
		err := t.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > reopenMax {
			pause = reopenMin
		}
		if !errors.Is(err, shapelog.ErrNoLog) {
			t.cfg.Log.Error("the log cannot be followed; trying again", "pause", pause, "err", err)
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, reopenMax)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow opens the log and follows it until ctx ends or an error.
func (t *Tail) follow(ctx context.Context) error {
	f, err := shapelog.OpenFollower(ctx, t.cfg.Store, recovery{t}, shapelog.FollowerOptions{
		ProbeInterval: t.cfg.Store.Caps().ProbeInterval,
		Waiting:       func() bool { return !t.fresh() && t.cfg.Waiting() },
	})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	t.follower.Store(f)
	defer t.follower.Store(nil)
	if t.isLoaded.CompareAndSwap(false, true) {
		close(t.loaded)
	}
	if t.cfg.Feed == nil {
		return f.Run(ctx)
	}
	feedCtx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // waited for below
		defer close(ended)
		t.listen(feedCtx, f)
	}()
	defer func() { stop(); <-ended }()
	return f.Run(ctx)
}

// Wake tells that the log may have grown, or that somebody began to wait.
func (t *Tail) Wake() {
	if f := t.follower.Load(); f != nil && !t.fresh() {
		f.Wake()
	}
}

// Sync makes the state as new as the bucket is. The error is ErrNotOpen or the store's.
func (t *Tail) Sync(ctx context.Context) error {
	f := t.follower.Load()
	if f == nil {
		return ErrNotOpen
	}
	return f.Sync(ctx)
}

// Fresh makes sure that the state is as new as what the feed has brought lately, or as the bucket is.
func (t *Tail) Fresh(ctx context.Context) error {
	if t.fresh() {
		return nil
	}
	return t.Sync(ctx)
}

// fresh reports whether the feed is alive, and has met the bucket.
func (t *Tail) fresh() bool {
	at := t.heard.Load()
	// By the wall clock, which goes on while a machine or a function sleeps.
	return at != 0 && time.Now().UnixNano()-at < int64(freshFor)
}

// Certain reports whether what the state does not have is nowhere: what another process, or this one before the feed's
// writer died, has shown by the feed has come again by now.
func (t *Tail) Certain() bool {
	return t.cfg.Feed == nil || t.fresh() && time.Now().UnixNano()-t.met.Load() > int64(certainAfter)
}

// recovery folds what the follower reads into the state. It is shapelog's Recovery, and has the follower's turn.
type recovery struct{ t *Tail }

// Load takes in a state that is not the one before and a segment: all that was assumed may be wrong.
func (r recovery) Load(ctx context.Context, c shapelog.Checkpoint) error {
	if err := r.t.cfg.State.Load(ctx, r.t.cfg.Store, c.Generation, c.Shards); err != nil {
		return err
	}
	r.t.forget()
	r.t.cfg.Changed(&catalog.Delta{}, true)
	return nil
}

// Apply takes in the next segment.
func (r recovery) Apply(seg *segment.Segment) error {
	t := r.t
	t.takeBack()
	if seg.Epoch != t.early.epoch {
		t.forget() // the writer whose frames are held has been replaced
	}
	t.cfg.Bodies.Keep(seg)
	delta, err := t.cfg.State.Apply(seg.Meta, seg.Frames)
	if err != nil {
		return err
	}
	t.cfg.Changed(&delta, false)
	t.drop(seg.Seq)
	return t.showEarly()
}
