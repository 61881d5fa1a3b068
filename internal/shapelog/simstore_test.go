package shapelog

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/object"
)

var (
	errLost  = errors.New("simulated: lost")
	errCrash = errors.New("simulated: crash")
)

// weather is how bad things are in one run. Chances are of one request.
type weather struct {
	lostRequest, lostReply float64
	late                   float64 // the effect comes up to hours later, when the caller has long given up
	pause                  float64 // the whole process stands still at this request
	pauseMax               time.Duration
	even                   bool // pauses are as likely long as short
	latency                time.Duration
}

// proc is a process as its store sees it: it pauses as a whole, crashes, and its requests meet the weather. What
// happens to a request depends on the seed, the process, the request, and how often it was made, and on nothing else:
// goroutines that run at the same moment cannot change it.
type proc struct {
	w      *world
	name   string
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	calls  map[string]int
	paused time.Time // until then
	dead   bool
	calm   bool
}

func (w *world) start(name string) *proc {
	p := &proc{w: w, name: name, calls: make(map[string]int)}
	p.ctx, p.cancel = context.WithCancelCause(w.ctx)
	return p
}

// crash ends the process. Requests that it sent may still have their effect.
func (p *proc) crash() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.cancel(errCrash)
}

func (p *proc) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

func (p *proc) rng(what string) *rand.Rand {
	p.mu.Lock()
	nth := p.calls[what]
	p.calls[what]++
	p.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", p.name, what, nth)
	return rand.New(rand.NewPCG(p.w.seed, h.Sum64()))
}

func (p *proc) pauseFor(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(d); until.After(p.paused) {
		p.paused = until
	}
}

// gate returns when the process runs: a paused one neither sends nor sees anything. Those that wait go on one after
// another, as the seed has it.
func (p *proc) gate(turn time.Duration) {
	for {
		p.mu.Lock()
		d := time.Until(p.paused)
		p.mu.Unlock()
		if d <= 0 || !sleepUnless(p.ctx, d+turn) {
			return
		}
	}
}

// span draws a duration that is about as likely to be between 1 and 10 seconds as between 1 and 10 hours. Its
// nanoseconds make the order of events follow the seed.
func span(r *rand.Rand, longest time.Duration) time.Duration {
	d := time.Second
	for d < longest && r.IntN(4) != 0 {
		d *= 4
	}
	return time.Duration(r.Int64N(int64(min(d, longest)))) + 1
}

// span draws how long something stands still.
func (s *weather) span(r *rand.Rand) time.Duration {
	if s.even {
		return time.Duration(r.Int64N(int64(s.pauseMax))) + 1
	}
	return span(r, s.pauseMax)
}

type outcome struct {
	value any
	err   error
}

// do lets one request meet the weather. The effect of one that is lasting comes even if the caller gives up.
func (p *proc) do(ctx context.Context, what string, lasting bool, effect func(context.Context) (any, error)) (any, error) {
	r := p.rng(what)
	s := p.w.weather
	if p.calm {
		s = weather{latency: s.latency, pauseMax: s.pauseMax}
	}
	hit := func(chance float64) bool { return r.Float64() < chance }
	jitter := func() time.Duration { return time.Duration(r.Int64N(int64(s.latency))) + 1 }

	if hit(s.pause) {
		p.pauseFor(s.span(r))
	}
	turn, turnAfter := time.Duration(r.Int64N(int64(time.Millisecond))), time.Duration(r.Int64N(int64(time.Millisecond)))
	p.gate(turn)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	travel, back := jitter(), jitter()
	if hit(s.late) {
		travel += s.span(r)
	}
	lost, lostReply, pauseAfter := hit(s.lostRequest), hit(s.lostReply), hit(s.pause)
	pausedFor := s.span(r)
	if pauseAfter { // with the request under way
		p.pauseFor(pausedFor)
	}
	defer p.gate(turnAfter)
	var reply outcome
	switch {
	case lost:
		sleepUnless(ctx, time.Minute)
		return nil, errLost
	case !lasting:
		if !sleepUnless(ctx, travel) {
			return nil, context.Cause(ctx)
		}
		reply.value, reply.err = effect(ctx)
	default:
		replies := make(chan outcome, 1)
		p.w.effects.Go(func() {
			time.Sleep(travel)
			v, err := effect(context.WithoutCancel(ctx))
			replies <- outcome{v, err}
		})
		select {
		case reply = <-replies:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if !sleepUnless(ctx, back) {
		return nil, context.Cause(ctx)
	}
	if lostReply {
		return nil, errLost
	}
	return reply.value, reply.err
}

func sleepUnless(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *proc) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	v, err := p.do(ctx, "get "+key, false, func(ctx context.Context) (any, error) { return p.w.store.Get(ctx, key, r) })
	o, _ := v.(*object.Object)
	return o, err
}

func (p *proc) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	v, err := p.do(ctx, "list "+prefix, false, func(ctx context.Context) (any, error) {
		return p.w.store.List(ctx, prefix, after, limit)
	})
	infos, _ := v.([]object.Info)
	return infos, err
}

func (p *proc) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	body = append([]byte(nil), body...)
	v, err := p.do(ctx, "put "+key, true, func(ctx context.Context) (any, error) {
		etag, err := p.w.store.Put(ctx, key, body, c)
		if err == nil {
			p.w.created(key, body)
		}
		return etag, err
	})
	etag, _ := v.(string)
	return etag, err
}

func (p *proc) Delete(ctx context.Context, key string) error {
	_, err := p.do(ctx, "delete "+key, true, func(ctx context.Context) (any, error) { return nil, p.w.store.Delete(ctx, key) })
	return err
}

func (p *proc) Caps() object.Caps { return p.w.store.Caps() }
