package shapelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
)

// Writer appends to the log. It is made by OpenWriter, and spent after its first error: see Done.
type Writer struct {
	store   object.Store
	opts    WriterOptions
	id      uint64
	epoch   uint64
	fence   uint64 // the first own fence
	puts    sync.WaitGroup
	ctx     context.Context // of the puts; ends with Close or the first error
	stop    context.CancelCauseFunc
	ordered sync.Mutex // held while OnDurable is called; before mu
	recent  recent

	mu        sync.Mutex
	valid     stopwatch // since before the last look that found control to name this writer
	next      uint64
	sum       uint32
	undurable uint64           // the first slot that is not durable
	underway  map[uint64]*slot // from undurable to next
	moved     chan struct{}    // closed when undurable moves
	closing   bool             // nothing more is appended
}

// slot is one put.
type slot struct {
	meta    segment.Meta
	body    []byte
	began   time.Time
	done    bool
	failing time.Time // since when attempts fail; zero if the last did not
	err     error     // of the last attempt
}

func newWriter(ctx context.Context, t *takeover, opts WriterOptions) *Writer {
	w := &Writer{
		store: t.store, opts: opts, id: t.id, epoch: t.control.Epoch, fence: t.first,
		valid: t.valid, next: t.next, sum: t.sum, undurable: t.next, underway: make(map[uint64]*slot), moved: make(chan struct{}),
	}
	w.ctx, w.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	return w
}

// Epoch is the writer's epoch.
func (w *Writer) Epoch() uint64 { return w.epoch }

// Next is the slot that the next Append will take.
func (w *Writer) Next() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Append seals b as the next segment and starts to store it. It waits while the window is full, so a slow store
// holds its caller up; the window counts slots and not puts, because that is what a successor fences. b is empty
// afterwards. The error is the writer's first, or ctx's.
func (w *Writer) Append(ctx context.Context, b *segment.Builder) (seq uint64, err error) {
	w.mu.Lock()
	for w.next-w.undurable >= Window {
		moved := w.moved
		w.mu.Unlock()
		select {
		case <-moved:
		case <-w.ctx.Done():
			return 0, w.Err()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	if err := w.Err(); err != nil {
		return 0, err
	}
	if w.closing {
		return 0, errClosed
	}
	body, meta := b.Seal(segment.Meta{Seq: w.next, Epoch: w.epoch, Writer: w.id, Prev: w.sum})
	s := &slot{meta: meta, body: body, began: time.Now()}
	w.underway[w.next] = s
	w.next++
	w.sum = meta.Sum
	w.puts.Go(func() {
		if err := w.put(s); err != nil {
			w.stop(err)
			return
		}
		w.durable(s)
	})
	return meta.Seq, nil
}

// put stores a segment, however long that takes, and returns an error only if it must not or need not go on.
func (w *Writer) put(s *slot) error {
	var wait backoff
	for {
		limited, cancel := context.WithTimeout(w.ctx, requestTimeout)
		_, err := w.store.Put(limited, SegmentKey(s.meta.Seq), s.body, object.IfAbsent())
		cancel()
		if err == nil {
			return w.believe(s)
		}
		there, gerr := getSegment(w.ctx, w.store, s.meta.Seq)
		switch {
		case gerr == nil && there.Sum == s.meta.Sum && there.Writer == w.id:
			return w.believe(s)
		case gerr == nil && there.Epoch > w.epoch:
			return fmt.Errorf("put segment %d: %w", s.meta.Seq, ErrFenced)
		case gerr == nil:
			return fmt.Errorf("put segment %d: %w", s.meta.Seq, ErrCollision)
		case errors.Is(gerr, segment.ErrCorrupt), errors.Is(gerr, segment.ErrVersion):
			return fmt.Errorf("put segment %d: %w", s.meta.Seq, errors.Join(ErrCollision, gerr))
		}
		w.note(s, err)
		if werr := wait.wait(w.ctx); werr != nil {
			return werr
		}
	}
}

// believe decides whether a success may count. One that comes long after control named this writer may be that of a
// slot which was fenced, packed and collected while we slept (rule 4): control tells, the epoch first, then the floor
// (rule 5).
func (w *Writer) believe(s *slot) error {
	w.mu.Lock()
	late := w.valid.elapsed() > lateAfter
	w.mu.Unlock()
	if !late || w.opts.rules.noValidation {
		return nil
	}
	asked := startWatch()
	c, err := readAgain(w.ctx, w.store)
	if err != nil {
		return err
	}
	if (c.Epoch != w.epoch || c.Writer != w.id) && !w.opts.rules.noEpochCheck {
		return fmt.Errorf("segment %d was stored late: %w", s.meta.Seq, ErrFenced)
	}
	if c.Floor > s.meta.Seq {
		return fmt.Errorf("segment %d was stored below the floor: %w", s.meta.Seq, ErrCollision)
	}
	w.validated(asked)
	return nil
}

// validated notes that a look at control, asked for at that time, found it to name this writer.
func (w *Writer) validated(asked stopwatch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if asked.at.After(w.valid.at) {
		w.valid = asked
	}
}

func (w *Writer) note(s *slot, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.err = err
	if s.failing.IsZero() {
		s.failing = time.Now()
	}
}

// durable records that s is stored, and reports what has become durable with it.
func (w *Writer) durable(s *slot) {
	w.ordered.Lock()
	defer w.ordered.Unlock()
	var ready []segment.Meta
	w.mu.Lock()
	s.done, s.failing = true, time.Time{}
	for first := w.underway[w.undurable]; first != nil && first.done; first = w.underway[w.undurable] {
		w.recent.keep(first.meta.Seq, first.body)
		ready = append(ready, first.meta)
		delete(w.underway, w.undurable)
		w.undurable++
	}
	if len(ready) > 0 {
		close(w.moved)
		w.moved = make(chan struct{})
	}
	w.mu.Unlock()
	if w.opts.OnDurable == nil {
		return
	}
	for _, m := range ready {
		w.opts.OnDurable(m)
	}
}

// errNoAnswer is why a segment is not stored while its first attempt is under way.
var errNoAnswer = errors.New("the bucket does not answer")

// Stalled reports since when, and why, a segment cannot be stored, or since when one is under way; a nil error if there
// is none.
func (w *Writer) Stalled() (since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.underway {
		if !s.done && s.failing.IsZero() && (err == nil || s.began.Before(since)) {
			since, err = s.began, errNoAnswer
		}
		if !s.failing.IsZero() && (err == nil || s.failing.Before(since)) {
			since, err = s.failing, s.err
		}
	}
	return since, err
}

// Checkpoint records c in control. Everything up to c.Seq must be durable, the fences of this writer among it, and
// generation c.Generation stored, in objects that no writer who was replaced can overwrite. The error is ErrFenced if
// another writer has taken over.
func (w *Writer) Checkpoint(ctx context.Context, c Checkpoint) error {
	c.Epoch = w.epoch
	return w.change(ctx, func(ctl *Control) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case c.Seq < w.fence || c.Seq < ctl.Checkpoint.Seq:
			return fmt.Errorf("checkpoint at %d: the one at %d, or the takeover at %d, is newer",
				c.Seq, ctl.Checkpoint.Seq, w.fence)
		case c.Seq >= w.undurable:
			return fmt.Errorf("checkpoint at %d: only what is before %d is durable", c.Seq, w.undurable)
		}
		ctl.Checkpoint = c
		return nil
	})
}

// change swaps control as long as it is ours: the epoch is looked at first, then the floor (rule 5).
func (w *Writer) change(ctx context.Context, f func(*Control) error) error {
	var wait backoff
	for {
		asked := startWatch()
		c, etag, err := ReadControl(ctx, w.store)
		if err == nil {
			if c.Epoch != w.epoch || c.Writer != w.id {
				err = fmt.Errorf("change control: %w", ErrFenced)
				w.stop(err)
				return err
			}
			w.validated(asked)
			was := c
			if err := f(&c); err != nil {
				return err
			}
			if c == was {
				return nil // done already: the reply was lost
			}
			err = swapControl(ctx, w.store, c, etag)
			if err == nil {
				return nil
			}
		}
		if errors.Is(err, ErrNoLog) || errors.Is(err, ErrFormat) {
			return err
		}
		if werr := wait.wait(ctx); werr != nil {
			return errors.Join(err, werr)
		}
	}
}

// Done is closed at the writer's first error or Close.
func (w *Writer) Done() <-chan struct{} { return w.ctx.Done() }

// Err is the writer's first error; nil before Done.
func (w *Writer) Err() error { return context.Cause(w.ctx) }

// errClosed is the cause after Close.
var errClosed = errors.New("the log's writer is closed")

// Close waits for the puts under way, until ctx ends, and then gives them up. The error, if any, says what kept a
// segment from becoming durable.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	idle := make(chan struct{})
	go func() { w.puts.Wait(); close(idle) }() // ends at the latest with w.ctx below
	select {
	case <-idle:
	case <-w.ctx.Done():
	case <-ctx.Done():
	}
	w.stop(errClosed)
	<-idle
	if err := w.Err(); !errors.Is(err, errClosed) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.undurable != w.next {
		return fmt.Errorf("close the log: segments %d to %d are not known to be stored: %w",
			w.undurable, w.next-1, context.Cause(ctx))
	}
	return nil
}
