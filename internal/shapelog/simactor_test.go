package shapelog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// session is a writer from one OpenWriter to its end.
type session struct {
	p      *proc
	r      *rand.Rand
	w      *Writer
	mu     sync.Mutex
	states map[uint64]simState // after each segment appended
	last   simState            // durable
	gen    uint32
}

func (s *session) onDurable(m segment.Meta) {
	s.mu.Lock()
	s.last = s.states[m.Seq]
	delete(s.states, m.Seq)
	s.mu.Unlock()
	if !s.p.alive() {
		return
	}
	if !s.p.w.counts(m) {
		s.p.w.violate("%s acknowledges %+v, which does not count", s.p.name, m)
	}
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	s.p.w.acked = max(s.p.w.acked, int(m.Visible/16))
}

// write opens the log and feeds it with what Postgres has, until the log or the process ends, or target is reached.
func (s *session) write(target int) error {
	world := s.p.w
	l := &ledger{p: s.p}
	s.states = make(map[uint64]simState)
	w, err := OpenWriter(s.p.ctx, s.p, l, WriterOptions{OnDurable: s.onDurable, rules: world.rules})
	if err != nil {
		return err
	}
	if l.wrong != nil {
		world.violate("taking over: %w", l.wrong)
	}
	if s.p.calm && l.state.Txn < world.acked {
		world.violate("transactions up to %d were acknowledged, the log ends at %+v", world.acked, l.state)
	}
	s.w, s.last = w, l.state
	err = s.feed(l.state, target)
	closing, cancel := context.WithTimeout(context.WithoutCancel(s.p.ctx), time.Hour)
	defer cancel()
	if !s.p.alive() {
		cancel()
	}
	err = errors.Join(err, w.Close(closing))
	if errors.Is(err, ErrCollision) && s.p.alive() {
		if c, _, cerr := ReadControl(context.WithoutCancel(s.p.ctx), world.store); cerr == nil && c.Epoch == w.Epoch() {
			world.violate("%s, who holds epoch %d: %w", s.p.name, c.Epoch, err)
		}
	}
	return err
}

func (s *session) feed(state simState, target int) error {
	world := s.p.w
	s.idle()
	for state.Txn < target {
		select {
		case <-s.w.Done():
			return s.w.Err()
		default:
		}
		if d := time.Until(world.commits[state.Txn]); !sleepUnless(s.p.ctx, d) {
			return context.Cause(s.p.ctx)
		}
		var b segment.Builder
		for n := 1 + s.r.IntN(2); n > 0 && state.Txn < target && time.Until(world.commits[state.Txn]) <= 0; n-- {
			txn, part := state.Txn+1, state.Part+1
			state.take(world, txn, part)
			b.Add(&segment.Frame{Visible: lsn(state.Txn), End: lsn(state.Txn) + 8,
				Messages: []segment.Message{{Offset: shape.At(lsn(txn), uint64(part)), Body: []byte("{")}}})
		}
		s.mu.Lock()
		state.Seq, state.Epoch = s.w.Next(), s.w.Epoch()
		s.states[state.Seq] = state
		s.mu.Unlock()
		seq, err := s.w.Append(s.p.ctx, &b)
		if err != nil {
			return err
		}
		if seq != state.Seq {
			return fmt.Errorf("appended at %d, not at %d", seq, state.Seq)
		}
		if s.r.Float64() < world.tidy {
			s.retire()
		}
		if !s.idle() {
			return context.Cause(s.p.ctx)
		}
	}
	return nil
}

// idle lets the writer do nothing for a while, perhaps.
func (s *session) idle() bool {
	w := s.p.w
	if s.r.Float64() >= w.leisure {
		return true
	}
	if w.weather.even {
		return sleepUnless(s.p.ctx, time.Duration(s.r.Int64N(int64(w.nap))))
	}
	return sleepUnless(s.p.ctx, span(s.r, w.nap))
}

// retire makes a checkpoint, raises the floor at times, and sweeps. What goes wrong is the writer's to know.
func (s *session) retire() {
	s.mu.Lock()
	state := s.last
	s.mu.Unlock()
	if state.Seq == 0 || !s.p.alive() {
		return
	}
	s.gen++
	generation := s.w.Epoch()<<32 | uint64(s.gen)
	s.p.w.mu.Lock()
	s.p.w.catalogs[generation] = state
	s.p.w.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.p.ctx, time.Hour)
	defer cancel()
	if s.w.Checkpoint(ctx, Checkpoint{Generation: generation, Seq: state.Seq, Shards: 1}) != nil {
		return
	}
	floor := state.Seq + 1 - min(state.Seq, s.r.Uint64N(6))
	if s.p.w.thorough {
		floor = state.Seq + 1
	} else if s.r.IntN(3) == 0 {
		return
	}
	if s.w.Retire(ctx, floor) == nil {
		_, _ = s.w.Sweep(ctx)
	}
}

// writer is a process that takes the log over again and again, and now and then crashes.
func (w *world) writer(i int) {
	for n := 0; w.ctx.Err() == nil; n++ {
		name := fmt.Sprintf("writer %d.%d", i, n)
		p := w.start(name)
		r := p.rng("plan")
		if !sleepUnless(p.ctx, span(r, w.rest)) {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if life := span(r, 8*time.Hour); sleepUnless(p.ctx, time.Minute+life) && r.IntN(2) == 0 {
				p.crash()
			}
		})
		s := &session{p: p, r: p.rng("session")}
		_ = s.write(w.txns)
		p.crash()
		wg.Wait()
	}
}

// reader follows the log, sleeps, and at times begins anew.
func (w *world) reader(i int) (*proc, *ledger, *Follower) {
	for n := 0; ; n++ {
		p := w.start(fmt.Sprintf("reader %d.%d", i, n))
		r := p.rng("plan")
		l := &ledger{p: p, strict: true}
		sleepUnless(p.ctx, span(r, time.Hour))
		f, err := OpenFollower(p.ctx, p, l, FollowerOptions{ProbeInterval: 5 * time.Minute, rules: w.rules})
		for err == nil && p.ctx.Err() == nil {
			sleepUnless(p.ctx, span(r, 4*time.Hour))
			ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
			_ = f.Sync(ctx)
			cancel()
			if r.IntN(40) == 0 {
				break
			}
		}
		if w.ctx.Err() != nil {
			return p, l, f // f is nil if there was no log yet
		}
		p.crash()
	}
}
