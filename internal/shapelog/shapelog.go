// Package shapelog is the one log in a store: segments under names that count up, a small control object, and the
// rules that let any number of processes believe they are the writer while only one is. It owns `control` and
// `log/<seq>`; it knows nothing of shapes, and leaves the meaning of segments to whoever applies them. FORMAT.md
// beside it is the specification.
//
// The one idea: creating an object that must not exist is the commit. A writer that takes over raises the epoch,
// then fences as many names as the writer before it can have under way, so that whatever a sleeping writer still
// does lands behind a fence, where readers drop it. No clock decides who may write.
package shapelog

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
)

const (
	// Format is the version of control that this package writes, and the only one it reads.
	Format = 1

	// Window is how many slots a writer may have between its first undurable one and the next: what a successor has
	// to fence. Writers must agree on it, so it stands in control; to change it is to change the format.
	Window = 8

	// ControlKey is the key of the control object, LogPrefix of what SegmentKey returns.
	ControlKey = "control"
	LogPrefix  = "log/"
)

const (
	requestTimeout = 10 * time.Second // for one attempt; a put that takes longer is read back

	// aheadMax is how many slots are read at the same time by who is behind: it divides the round trips of a start,
	// and bounds the segments held in memory.
	aheadMax = 8

	// Grace is the age, by the store's clock, that a segment below the floor has at least when it is deleted.
	Grace = time.Hour

	// lateAfter is how long after control named a writer a success is believed without another look: the fences of
	// a successor are still there, so the slot was not one of theirs. Once they are collected it could be created
	// anew. How long the put itself took says nothing: the sleep may have come before it.
	lateAfter = Grace / 4

	// freshFor is how long after a slot was found to be still empty a reader relies on what is in it, and in those
	// behind it: they are younger than Grace.
	freshFor = Grace / 4

	retryMin = 20 * time.Millisecond
	retryMax = 2 * time.Second
)

var (
	// ErrNoLog means that no writer has ever opened a log in the store.
	ErrNoLog = errors.New("the bucket holds no log yet: start shapeline ingest on it")

	// ErrFenced means that another writer has taken the log over. What was appended and not reported durable is
	// void.
	ErrFenced = errors.New("another ingest has taken the log over")

	// ErrCollision means that a slot of ours holds something that neither we nor a successor wrote. The writer is
	// spent; opening the log again finds the truth.
	ErrCollision = errors.New("a slot of the log holds another segment")

	// ErrFormat means that control is of a format that this build does not know.
	ErrFormat = errors.New("the bucket's log has an unknown format: run a newer shapeline")
)

// Checkpoint says which generation of the catalogue holds everything up to and including segment Seq. The zero
// Checkpoint is the beginning of the log, whose first segment has Seq 1.
type Checkpoint struct {
	Generation uint64 `json:"generation"`
	Seq        uint64 `json:"seq"`
	Shards     int    `json:"shards"`
	Epoch      uint64 `json:"epoch"` // segments behind Seq with a lower one are void; set by Writer.Checkpoint
}

// Control is the control object.
type Control struct {
	Format     int        `json:"format"`
	Epoch      uint64     `json:"epoch"`  // of the writer that took over last
	Writer     uint64     `json:"writer"` // its random number
	Window     int        `json:"window"`
	Floor      uint64     `json:"floor"` // segments below it may be gone
	Checkpoint Checkpoint `json:"checkpoint"`
}

// Recovery rebuilds, from the log, whatever its reader keeps. Its methods are called by one goroutine at a time.
type Recovery interface {
	// Load forgets everything and starts from c.
	Load(ctx context.Context, c Checkpoint) error
	// Apply takes the next segment, fences included. Void segments are left out: sequence numbers may have gaps.
	Apply(s *segment.Segment) error
}

// SegmentKey is the object key of a segment.
func SegmentKey(seq uint64) string {
	b := [8]byte{}
	binary.BigEndian.PutUint64(b[:], seq)
	return LogPrefix + hex.EncodeToString(b[:])
}

// ReadControl returns the control object and its etag. The error is ErrNoLog if there is none.
func ReadControl(ctx context.Context, store object.Reader) (Control, string, error) {
	o, err := get(ctx, store, ControlKey)
	if errors.Is(err, object.ErrNotFound) {
		return Control{}, "", ErrNoLog
	}
	if err != nil {
		return Control{}, "", fmt.Errorf("get control: %w", err)
	}
	c, err := parseControl(o.Body)
	return c, o.ETag, err
}

// parseControl reads the bytes of control.
func parseControl(b []byte) (Control, error) {
	var c Control
	if err := json.Unmarshal(b, &c); err != nil {
		return Control{}, fmt.Errorf("control is not JSON (%w): restore it from a copy of the bucket", err)
	}
	if c.Format != Format || c.Window != Window {
		return Control{}, fmt.Errorf("control has format %d and window %d: %w", c.Format, c.Window, ErrFormat)
	}
	return c, nil
}

// swapControl replaces control if it still has the etag, "" meaning that there is none. Like every conditional put,
// one that ends in an error may have happened.
func swapControl(ctx context.Context, store object.Store, c Control, etag string) error {
	b, err := segment.SealJSON(c)
	if err != nil {
		return fmt.Errorf("encode control: %w", err)
	}
	cond := object.IfAbsent()
	if etag != "" {
		cond = object.IfMatch(etag)
	}
	if _, err := store.Put(ctx, ControlKey, b, cond); err != nil {
		return fmt.Errorf("put control: %w", err)
	}
	return nil
}

// get reads a whole object. It refuses one that was cut off on its way, which reading again mends.
func get(ctx context.Context, store object.Reader, key string) (*object.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	o, err := store.Get(ctx, key, object.Range{})
	if err == nil && int64(len(o.Body)) != o.Size {
		err = fmt.Errorf("got %d of %d bytes", len(o.Body), o.Size)
	}
	return o, err
}

// getSegment reads a slot. The error wraps object.ErrNotFound if it is free.
func getSegment(ctx context.Context, store object.Reader, seq uint64) (*segment.Segment, error) {
	o, err := get(ctx, store, SegmentKey(seq))
	if err != nil {
		return nil, fmt.Errorf("get segment %d: %w", seq, err)
	}
	s, err := segment.Decode(o.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", SegmentKey(seq), err)
	}
	if s.Seq != seq {
		return nil, fmt.Errorf("%s says it is segment %d: %w", SegmentKey(seq), s.Seq, segment.ErrCorrupt)
	}
	return s, nil
}

// readSegment reads a slot for somebody who works through many, and so tries again. The error wraps object.ErrNotFound
// if it is free.
func readSegment(ctx context.Context, store object.Reader, seq uint64) (s *segment.Segment, err error) {
	err = patiently(ctx, func() (err error) {
		s, err = getSegment(ctx, store, seq)
		return err
	})
	return s, err
}

// getSegments reads n slots from next on, at the same time, and returns those before the first that is free. ended
// tells that there is one.
func getSegments(ctx context.Context, store object.Reader, next uint64, n int) (found []*segment.Segment, ended bool, err error) {
	found, errs := make([]*segment.Segment, n), make([]error, n)
	var others sync.WaitGroup
	for i := 1; i < n; i++ {
		others.Go(func() { found[i], errs[i] = getSegment(ctx, store, next+uint64(i)) })
	}
	found[0], errs[0] = getSegment(ctx, store, next)
	others.Wait()
	for i, err := range errs {
		switch {
		case errors.Is(err, object.ErrNotFound):
			return found[:i], true, nil
		case err != nil && i == 0:
			return nil, false, err
		case err != nil:
			return found[:i], false, nil // it is the first of the next call, which reports it
		}
	}
	return found, false, nil
}

// rules are the six of R2; the simulation switches them off one at a time.
type rules struct {
	noEpoch      bool // 1: do not raise the epoch, and so fence nothing
	oneFence     bool // 2: fence one slot, not the window
	countOlder   bool // 3: count slots before the first own fence
	noValidation bool // 4: do not read control after fencing and after late successes
	noEpochCheck bool // 5: such reads look at the floor alone
	noFloorCheck bool // 6: a reader back from a pause reads on without a look at the floor
}

// stopwatch tells how long something took by whichever clock says longer: the monotonic clock stands still while a
// virtual machine sleeps, and the wall clock may be set back.
type stopwatch struct{ at time.Time }

func startWatch() stopwatch { return stopwatch{time.Now()} }

func (w stopwatch) elapsed() time.Duration {
	now := time.Now()
	return max(now.Sub(w.at), now.Round(0).Sub(w.at.Round(0)))
}

// readTries is how often in a row a read may fail before a takeover is given up: it makes hundreds of them, and what has
// been read would have to be read again.
const readTries = 8

// patiently calls read until it succeeds, fails for a reason that another try does not mend, or has had its tries.
func patiently(ctx context.Context, read func() error) error {
	var wait backoff
	for try := 1; ; try++ {
		err := read()
		if err == nil || try == readTries || ctx.Err() != nil || errors.Is(err, object.ErrNotFound) || errors.Is(err, ErrNoLog) ||
			errors.Is(err, ErrFormat) || errors.Is(err, segment.ErrVersion) {
			return err
		}
		if werr := wait.wait(ctx); werr != nil {
			return errors.Join(err, werr)
		}
	}
}

// backoff is a pause that doubles.
type backoff struct{ next time.Duration }

func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, retryMin), retryMax)
	t := time.NewTimer(b.next)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
