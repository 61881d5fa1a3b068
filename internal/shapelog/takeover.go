package shapelog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
)

// takeoversMax bounds how often a takeover starts over because the floor had passed its fences.
const takeoversMax = 8

// WriterOptions are what a writer's owner may want.
type WriterOptions struct {
	// OnDurable is called for each segment once it and all before it are durable, in order, by one goroutine at a
	// time. It must be quick.
	OnDurable func(segment.Meta)

	rules rules
}

// OpenWriter takes the log over: it raises the epoch, feeds r everything from the checkpoint to the tail, fences the
// slots that the writer before may have under way, and makes sure that nobody else has taken over meanwhile. The
// error is ErrFenced if somebody has.
func OpenWriter(ctx context.Context, store object.Store, r Recovery, opts WriterOptions) (*Writer, error) {
	for range takeoversMax {
		t := &takeover{store: store, r: r, rules: opts.rules, id: rand.Uint64()}
		again, err := t.run(ctx)
		if err != nil {
			return nil, err
		}
		if !again {
			return newWriter(ctx, t, opts), nil
		}
	}
	return nil, fmt.Errorf("take over the log: its floor moved past %d attempts; is another ingest running?", takeoversMax)
}

type takeover struct {
	store object.Store
	r     Recovery
	rules rules
	id    uint64 // the writer's

	control Control
	valid   stopwatch // since before the last look that found control to name this writer
	next    uint64    // the slot that follows
	epoch   uint64    // highest seen in the log
	first   uint64    // the first own fence; 0 is none yet
	sum     uint32    // of the last slot
}

// run takes over once. again means that the floor has passed the fences: everything has to be read anew.
func (t *takeover) run(ctx context.Context) (again bool, err error) {
	if err := t.raise(ctx); err != nil {
		return false, err
	}
	if err := patiently(ctx, func() error { return t.r.Load(ctx, t.control.Checkpoint) }); err != nil {
		if errors.Is(err, object.ErrNotFound) { // an older generation than the newest, swept meanwhile
			return true, nil
		}
		return false, fmt.Errorf("load the checkpoint: %w", err)
	}
	t.next, t.epoch = t.control.Checkpoint.Seq+1, t.control.Checkpoint.Epoch
	for ended := false; !ended; {
		var found []*segment.Segment
		if err := patiently(ctx, func() (err error) {
			found, ended, err = getSegments(ctx, t.store, t.next, aheadMax)
			return err
		}); err != nil {
			return false, err
		}
		for _, s := range found {
			if s.Epoch > t.control.Epoch && !t.rules.noEpoch {
				// To go on would be to fence a successor, who has the right of way.
				return false, fmt.Errorf("log slot %d: %w", s.Seq, ErrFenced)
			}
			if err := t.apply(s); err != nil {
				return false, err
			}
		}
	}
	if !t.rules.noEpoch {
		if err := t.fence(ctx); err != nil {
			return false, err
		}
	}
	return t.validate(ctx)
}

// raise writes the next epoch into control (rule 1).
func (t *takeover) raise(ctx context.Context) error {
	var wait backoff
	for {
		var c Control
		var etag string
		err := patiently(ctx, func() (err error) {
			c, etag, err = ReadControl(ctx, t.store)
			return err
		})
		switch {
		case errors.Is(err, ErrNoLog):
			c = Control{Format: Format, Window: Window}
		case err != nil:
			return err
		case c.Writer == t.id: // the reply to our own swap was lost
			t.control = c
			return nil
		}
		c.Writer = t.id
		if !t.rules.noEpoch || c.Epoch == 0 {
			c.Epoch++
		}
		err = swapControl(ctx, t.store, c, etag)
		if err == nil {
			t.control = c
			return nil
		}
		if errors.Is(err, object.ErrFull) {
			return err
		}
		if werr := wait.wait(ctx); werr != nil {
			return errors.Join(err, werr)
		}
	}
}

// apply takes what another writer put into the next slot. Segments of an epoch lower than one seen are void.
func (t *takeover) apply(s *segment.Segment) error {
	t.next, t.sum = s.Seq+1, s.Sum
	if s.Epoch < t.epoch {
		return nil
	}
	t.epoch = s.Epoch
	if err := t.r.Apply(s); err != nil {
		return fmt.Errorf("apply segment %d: %w", s.Seq, err)
	}
	return nil
}

// fence takes the slots of the window (rule 2), counted from the first own fence (rule 3). Until then the slots of
// the writer before are part of the log; from there on they are void.
func (t *takeover) fence(ctx context.Context) error {
	window := uint64(Window)
	if t.rules.oneFence {
		window = 1
	}
	counted := uint64(0)
	for counted < window {
		body, meta := segment.Fence(segment.Meta{Seq: t.next, Epoch: t.control.Epoch, Writer: t.id, Prev: t.sum})
		s, err := create(ctx, t.store, t.next, body, meta)
		if err != nil {
			return err
		}
		switch {
		case s.Writer == t.id:
			if t.first == 0 {
				t.first = s.Seq
			}
			counted++
		case s.Epoch > t.control.Epoch:
			return fmt.Errorf("fence slot %d: %w", s.Seq, ErrFenced)
		case t.first != 0 || t.rules.countOlder:
			counted++
		}
		if err := t.apply(s); err != nil {
			return err
		}
	}
	return nil
}

// create puts a segment into its slot and returns what is there afterwards: the segment itself, or what was
// quicker. A put that ends in an error may have happened all the same, so the slot is read back.
func create(ctx context.Context, store object.Store, seq uint64, body []byte, meta segment.Meta) (*segment.Segment, error) {
	var wait backoff
	for {
		limited, cancel := context.WithTimeout(ctx, requestTimeout)
		_, err := store.Put(limited, SegmentKey(seq), body, object.IfAbsent())
		cancel()
		if err == nil {
			return &segment.Segment{Meta: meta}, nil
		}
		s, gerr := getSegment(ctx, store, seq)
		if gerr == nil {
			return s, nil
		}
		if !errors.Is(gerr, object.ErrNotFound) {
			err = errors.Join(err, gerr)
		}
		if werr := wait.wait(ctx); werr != nil {
			return nil, fmt.Errorf("put segment %d: %w", seq, errors.Join(err, werr))
		}
	}
}

// validate reads control again (rule 4): the epoch first, then the floor (rule 5). A slot below the floor may have
// been collected before it was fenced, so that the fence stands where nobody reads.
func (t *takeover) validate(ctx context.Context) (again bool, err error) {
	t.valid = startWatch()
	if t.rules.noValidation {
		return false, nil
	}
	c, err := readAgain(ctx, t.store)
	if err != nil {
		return false, err
	}
	if (c.Epoch != t.control.Epoch || c.Writer != t.id) && !t.rules.noEpochCheck {
		return false, fmt.Errorf("validate the takeover: %w", ErrFenced)
	}
	return c.Floor > t.first && t.first != 0, nil
}

// readAgain reads control, as often as it takes.
func readAgain(ctx context.Context, store object.Reader) (Control, error) {
	var wait backoff
	for {
		c, _, err := ReadControl(ctx, store)
		if err == nil || errors.Is(err, ErrNoLog) || errors.Is(err, ErrFormat) {
			return c, err
		}
		if werr := wait.wait(ctx); werr != nil {
			return Control{}, errors.Join(err, werr)
		}
	}
}
