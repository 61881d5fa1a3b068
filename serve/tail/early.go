package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// early is what the feed has brought of segments that are not known to be durable, in order.
type early struct {
	epoch  uint64 // of the feed's writer; 0 if there is no feed, or what was held had to be let go
	met    bool   // all that comes before frames has been read
	frames []frame
	shown  int // so many of frames are applied to the state
	bytes  int // of all frames
}

type frame struct {
	seq   uint64
	bytes int
	segment.Frame
}

const (
	// heldMax bounds the frames that wait for their segments, so that a bucket that has stopped does not fill the memory
	// of whoever only reads: the feed is left, and asked for again.
	heldMax = 64 << 20

	// meetEvery is the pause between looks for what lies before the feed's first segment.
	meetEvery = 20 * time.Millisecond
)

// errLeft ends a subscription from this side.
var errLeft = errors.New("the feed does not meet the bucket")

// listen subscribes to the feed again and again until ctx ends.
func (t *Tail) listen(ctx context.Context, f *shapelog.Follower) {
	pause, said := resubscribeMin, "" // what the log has been told last
	for ctx.Err() == nil {
		began := time.Now()
		err := t.subscription(ctx, f)
		t.heard.Store(0)
		// What was shown early is void, unless the bucket says otherwise; without the turn it is the follower's to find.
		_ = f.Alone(ctx, func(uint64, uint64) { t.takeBack(); t.forget() })
		f.Wake() // somebody may be waiting
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > resubscribeMax {
			pause, said = resubscribeMin, ""
		}
		if why := fmt.Sprint(err); why != said { // not with each try
			t.cfg.Log.Warn("no feed from ingest; following the bucket meanwhile", "err", err)
			said = why
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, resubscribeMax)
	}
}

// subscription follows the feed until that ends.
func (t *Tail) subscription(ctx context.Context, f *shapelog.Follower) error {
	s, err := t.cfg.Feed.Subscribe(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	hello, err := s.Next(ctx)
	if err != nil {
		return err
	}
	if hello.Kind != feed.Hello {
		return fmt.Errorf("feed begins with %q: %w", hello.Kind, segment.ErrCorrupt)
	}
	if err := f.Alone(ctx, func(uint64, uint64) { t.early = early{epoch: hello.Epoch} }); err != nil {
		return err
	}
	met, looked := false, time.Time{}
	for {
		if !met && time.Since(looked) > meetEvery {
			if met, err = t.meet(ctx, f, &hello); err != nil {
				return err
			}
			looked = time.Now()
			if met {
				t.met.Store(looked.UnixNano())
				t.heard.Store(looked.UnixNano())
			}
		}
		e, err := s.Next(ctx)
		if err != nil {
			return err
		}
		if err := t.event(ctx, f, &hello, &e, met); err != nil {
			return err
		}
		if err := f.Alone(ctx, func(uint64, uint64) {
			if t.early.epoch != hello.Epoch {
				err = errLeft
			}
		}); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if met {
			t.heard.Store(time.Now().UnixNano())
		}
	}
}

// meet reports whether everything before the feed's first segment has been read from the bucket. If not, it is looked
// for with each event.
func (t *Tail) meet(ctx context.Context, f *shapelog.Follower, hello *feed.Event) (met bool, err error) {
	if err := f.Sync(ctx); err != nil {
		return false, err
	}
	var epoch uint64
	if err := f.Alone(ctx, func(next, seen uint64) {
		met, epoch = next >= hello.Seq && t.early.epoch == hello.Epoch, seen
		t.early.met = met
	}); err != nil {
		return false, err
	}
	if epoch > hello.Epoch {
		return false, errLeft // a writer that has been replaced and does not know it
	}
	if !met {
		return false, nil
	}
	aerr := f.Alone(ctx, func(uint64, uint64) { err = t.showEarly() })
	return true, errors.Join(err, aerr)
}

// event takes in one event.
func (t *Tail) event(ctx context.Context, f *shapelog.Follower, hello, e *feed.Event, met bool) (err error) {
	switch e.Kind {
	case feed.Beat:
		return nil
	case feed.Frame:
		fr := frame{seq: e.Seq, bytes: len(e.Frame)}
		rest, err := segment.DecodeFrame(e.Frame, &fr.Frame)
		if err != nil || len(rest) > 0 {
			return fmt.Errorf("feed: frame of segment %d: %w", e.Seq, errors.Join(segment.ErrCorrupt, err))
		}
		aerr := f.Alone(ctx, func(next, epoch uint64) {
			if e.Seq < next { // the follower was faster
				return
			}
			if err = t.hold(&fr); err == nil {
				err = t.showEarly()
			}
		})
		return errors.Join(err, aerr)
	case feed.Durable:
		if !met {
			return nil // the bucket has it
		}
		perr := f.Push(ctx, e.Seq, hello.Epoch, func() (done bool, serr error) {
			if done, serr = t.settle(e.Seq); !done {
				err = errLeft // the follower has to read it
			}
			return done, serr
		})
		return errors.Join(perr, err)
	}
	return fmt.Errorf("feed: event %q: %w", e.Kind, segment.ErrVersion)
}

// hold keeps a frame for later.
func (t *Tail) hold(fr *frame) error {
	if t.early.bytes+fr.bytes > heldMax {
		return errLeft
	}
	t.early.frames = append(t.early.frames, *fr)
	t.early.bytes += fr.bytes
	return nil
}

// showEarly applies what is held as far as a replay would reproduce it (R4): up to the first frame with records.
func (t *Tail) showEarly() error {
	for t.early.met && t.early.shown < len(t.early.frames) {
		fr := &t.early.frames[t.early.shown]
		if len(fr.Records) > 0 {
			return nil
		}
		t.cfg.Bodies.Live(fr.seq, &fr.Frame)
		delta, err := t.cfg.State.ApplyEarly(segment.Meta{Seq: fr.seq, Epoch: t.early.epoch}, []segment.Frame{fr.Frame})
		if err != nil {
			return err
		}
		t.early.shown++
		t.cfg.Changed(&delta, false)
	}
	return nil
}

// settle makes segment seq durable, unless its frames are not held: then it is the follower's to read.
func (t *Tail) settle(seq uint64) (bool, error) {
	n := 0
	for n < len(t.early.frames) && t.early.frames[n].seq == seq {
		n++
	}
	if n == 0 {
		return false, nil
	}
	var rest []segment.Frame // what could not be shown early
	for i := min(t.early.shown, n); i < n; i++ {
		fr := &t.early.frames[i]
		t.cfg.Bodies.Live(seq, &fr.Frame)
		rest = append(rest, fr.Frame)
	}
	t.cfg.State.Settle(seq)
	t.cfg.Bodies.Settle(seq)
	if len(rest) > 0 {
		delta, err := t.cfg.State.Apply(segment.Meta{Seq: seq, Epoch: t.early.epoch}, rest)
		if err != nil {
			return false, err
		}
		t.cfg.Changed(&delta, false)
	}
	t.drop(seq)
	return true, t.showEarly()
}

// takeBack undoes what was shown and is not durable. It stays held, and may be shown again.
func (t *Tail) takeBack() {
	if t.early.shown == 0 {
		return
	}
	t.early.shown = 0
	t.cfg.Bodies.Void()
	if ids := t.cfg.State.Rollback(); len(ids) > 0 {
		t.cfg.Changed(&catalog.Delta{Grown: ids}, false)
	}
}

// drop lets go of what is held of segments up to seq.
func (t *Tail) drop(seq uint64) {
	n := 0
	for n < len(t.early.frames) && t.early.frames[n].seq <= seq {
		n++
	}
	for i := range n {
		t.early.bytes -= t.early.frames[i].bytes
	}
	clear(t.early.frames[:n])
	t.early.frames = t.early.frames[n:]
	t.early.shown = max(t.early.shown-n, 0)
	if len(t.early.frames) == 0 {
		t.early.frames = nil
	}
}

// forget lets go of all that is held.
func (t *Tail) forget() {
	t.early = early{}
	t.cfg.Bodies.Void()
}
