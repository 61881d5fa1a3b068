package objecttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shapeline/shapeline/internal/object"
)

// seedEnv replays a run of Faulty: it holds the seed that the failing test printed.
const seedEnv = "SHAPELINE_FAULT_SEED"

// ErrFault is wrapped by every error that Faulty invents, except object.ErrFull.
var ErrFault = errors.New("injected fault")

// Faults says how a Faulty store behaves. The zero Faults are none. The numbers without a unit are probabilities,
// from 0 to 1, of one request.
type Faults struct {
	LostRequest float64 // an error, and no effect
	Refused     float64 // the same, by an answer of the store: 503 SlowDown, 409 to a condition, 400 to a body that came torn
	Told        float64 // a conditional put has its effect, and is answered 412, as if another had been first
	LostReply   float64 // the effect, then an error
	Ghost       float64 // an error, then the effect, up to GhostDelay later; reads fail without one
	BrokenRead  float64 // a Get fails half-way through its body
	ShortRead   float64 // a Get returns half of the body and no error
	Slow        float64 // up to SlowDelay pass before the request or before its reply

	GhostDelay time.Duration
	SlowDelay  time.Duration

	Full bool // every Put is ErrFull
	Down bool // every request fails without effect
}

// Counts are requests that callers made, whatever became of them.
type Counts struct{ Gets, Lists, Puts, Deletes int }

// Faulty is a store over another that fails in the ways that real ones do. It works in a testing/synctest bubble.
// In parallel use the seed fixes which faults happen, not to whom.
type Faulty struct {
	inner  object.Store
	ghosts sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand
	faults Faults
	counts Counts
}

// NewFaulty returns a store over inner, without faults so far, and prints its seed: that in SHAPELINE_FAULT_SEED, or
// a random one. The end of the test waits for effects that are still to come.
func NewFaulty(t testing.TB, inner object.Store) *Faulty {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("faults: replay with %s=%d", seedEnv, seed)
	f := NewSeededFaulty(inner, seed)
	t.Cleanup(f.Wait)
	return f
}

// NewSeededFaulty is NewFaulty with a given seed. The caller waits for the effects that are still to come.
func NewSeededFaulty(inner object.Store, seed uint64) *Faulty {
	return &Faulty{inner: inner, rng: rand.New(rand.NewPCG(seed, 0))}
}

// Set makes the store behave as f says from now on.
func (f *Faulty) Set(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// Counts returns the requests made so far.
func (f *Faulty) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Wait returns when no effect is still to come.
func (f *Faulty) Wait() { f.ghosts.Wait() }

// Caps implements object.Store.
func (f *Faulty) Caps() object.Caps { return f.inner.Caps() }

// fate is what happens to one request.
type fate struct {
	lostRequest, refused, told, lostReply, ghost, brokenRead, shortRead, full bool

	before, after, ghostDelay time.Duration
}

func (f *Faulty) draw(count func(*Counts)) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	count(&f.counts)
	hit := func(p float64) bool { return f.rng.Float64() < p }
	upTo := func(d time.Duration) time.Duration { return time.Duration(f.rng.Float64() * float64(d)) }
	s := fate{
		lostRequest: hit(f.faults.LostRequest) || f.faults.Down,
		refused:     hit(f.faults.Refused),
		told:        hit(f.faults.Told),
		lostReply:   hit(f.faults.LostReply),
		ghost:       hit(f.faults.Ghost),
		brokenRead:  hit(f.faults.BrokenRead),
		shortRead:   hit(f.faults.ShortRead),
		full:        f.faults.Full,
		ghostDelay:  upTo(f.faults.GhostDelay),
	}
	if hit(f.faults.Slow) {
		s.before = upTo(f.faults.SlowDelay)
	}
	if hit(f.faults.Slow) {
		s.after = upTo(f.faults.SlowDelay)
	}
	return s
}

// Get implements object.Reader.
func (f *Faulty) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	s := f.draw(func(c *Counts) { c.Gets++ })
	o, err := run(ctx, s, func(ctx context.Context) (*object.Object, error) { return f.inner.Get(ctx, key, r) })
	switch {
	case err != nil:
		return nil, err
	case s.brokenRead:
		return nil, fmt.Errorf("get %s: after %d bytes: %w: %w", key, len(o.Body)/2, ErrFault, io.ErrUnexpectedEOF)
	case s.shortRead:
		o.Body = o.Body[:len(o.Body)/2]
	}
	return o, nil
}

// List implements object.Reader.
func (f *Faulty) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	s := f.draw(func(c *Counts) { c.Lists++ })
	return run(ctx, s, func(ctx context.Context) ([]object.Info, error) {
		return f.inner.List(ctx, prefix, after, limit)
	})
}

// Put implements object.Store.
func (f *Faulty) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	s := f.draw(func(c *Counts) { c.Puts++ })
	if s.full {
		return "", fmt.Errorf("put %s: %w", key, object.ErrFull)
	}
	effect := func(ctx context.Context) (string, error) { return f.inner.Put(ctx, key, body, c) }
	if s.ghost {
		body = append([]byte(nil), body...) // the caller may change it once Put has returned
		f.haunt(ctx, s, func(ctx context.Context) { _, _ = effect(ctx) })
	}
	etag, err := run(ctx, s, effect)
	switch {
	case err != nil || !s.told || c == object.Always():
		return etag, err
	case c == object.IfAbsent():
		return "", fmt.Errorf("put %s: %w", key, object.ErrExists)
	}
	return "", fmt.Errorf("put %s: %w", key, object.ErrChanged)
}

// Delete implements object.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	s := f.draw(func(c *Counts) { c.Deletes++ })
	effect := func(ctx context.Context) (struct{}, error) { return struct{}{}, f.inner.Delete(ctx, key) }
	if s.ghost {
		f.haunt(ctx, s, func(ctx context.Context) { _, _ = effect(ctx) })
	}
	_, err := run(ctx, s, effect)
	return err
}

// haunt lets the effect happen later, whatever becomes of the caller; what comes of it nobody hears.
func (f *Faulty) haunt(ctx context.Context, s fate, effect func(ctx context.Context)) {
	ctx = context.WithoutCancel(ctx)
	f.ghosts.Go(func() {
		time.Sleep(s.before + s.ghostDelay)
		effect(ctx)
	})
}

// run lets a request meet its fate.
func run[T any](ctx context.Context, s fate, effect func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := pause(ctx, s.before); err != nil {
		return none, err
	}
	if s.lostRequest || s.ghost {
		return none, fmt.Errorf("request lost: %w", ErrFault)
	}
	if s.refused {
		return none, fmt.Errorf("503 SlowDown, 409 ConditionalRequestConflict or 400 IncompleteBody: %w", ErrFault)
	}
	v, err := effect(ctx)
	if err := pause(ctx, s.after); err != nil {
		return none, err
	}
	if s.lostReply {
		return none, fmt.Errorf("reply lost: %w", ErrFault)
	}
	return v, err
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
