package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shapeline/shapeline/ingest/compact"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// writer is one term, or several, of a process that writes until it is replaced.
type writer struct {
	*world
	rnd   *rand.Rand
	state *state
	log   *shapelog.Writer

	mu      sync.Mutex
	durable uint64
	grown   chan struct{}
}

// live takes the log over, and writes until another does.
func (w *writer) live(ctx context.Context, number int) {
	for ctx.Err() == nil {
		w.state, w.grown = &state{State: catalog.New(), store: w.store}, make(chan struct{})
		log, err := shapelog.OpenWriter(ctx, w.store, w.state, shapelog.WriterOptions{OnDurable: w.stored})
		if err != nil {
			select {
			case <-w.stop:
				return
			default:
			}
			if w.newest.Load() != int64(number) {
				return // nobody starts an old one again
			}
			pause(ctx, time.Millisecond)
			continue
		}
		w.log, w.durable = log, log.Next()-1
		w.terms.Add(1)
		_, _, visible, _ := w.state.Position()
		if confirmed := w.confirmed.Load(); uint64(visible) < confirmed && log.Err() == nil {
			// Another writer may have confirmed since this one took over; then this one is spent.
			if c, _, err := shapelog.ReadControl(ctx, w.calm); err != nil || c.Epoch == log.Epoch() {
				w.t.Errorf("seed %d: writer %d found transactions up to %d, confirmed were %d", w.seed, number, visible, confirmed)
			}
		}
		err = w.work(ctx, uint64(visible))
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 50*time.Millisecond) // a process that dies waits for nothing
		_ = log.Close(closing)
		cancel()
		if errors.Is(err, errDone) || w.newest.Load() != int64(number) {
			return
		}
	}
}

var errDone = errors.New("enough")

// stored is told by the log what has become durable: Postgres may forget it.
func (w *writer) stored(m segment.Meta) {
	for {
		was := w.confirmed.Load()
		if uint64(m.Visible) <= was || w.confirmed.CompareAndSwap(was, uint64(m.Visible)) {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable = m.Seq
	close(w.grown)
	w.grown = make(chan struct{})
}

// Durable and Append make w a compact.Log. The compactor runs between transactions.
func (w *writer) Durable() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.durable
}

func (w *writer) Append(ctx context.Context, r segment.Record) error {
	_, _, visible, end := w.state.Position()
	seq, err := w.append(ctx, segment.Frame{Visible: visible, End: end, Records: []segment.Record{r}})
	if err != nil {
		return err
	}
	for {
		w.mu.Lock()
		durable, grown := w.durable, w.grown
		w.mu.Unlock()
		if durable >= seq {
			return nil
		}
		select {
		case <-grown:
		case <-w.log.Done():
			return w.log.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *writer) append(ctx context.Context, frames ...segment.Frame) (uint64, error) {
	var b segment.Builder
	for i := range frames {
		b.Add(&frames[i])
	}
	seq, err := w.log.Append(ctx, &b)
	if err != nil {
		return 0, err
	}
	_, err = w.state.State.Apply(segment.Meta{Seq: seq, Epoch: w.log.Epoch()}, frames)
	return seq, err
}

// work writes transactions from the one behind visible on, packs, checkpoints, and dies now and then.
func (w *writer) work(ctx context.Context, visible uint64) error {
	if visible == 0 {
		visible = 10
		var records []segment.Record
		for id := range shape.ID(shapes) {
			records = append(records, openedRecord(id+1))
		}
		if len(w.state.Shapes()) == 0 {
			if _, err := w.append(ctx, segment.Frame{Visible: 10, End: 11, Records: records}); err != nil {
				return err
			}
		}
	}
	c := compact.New(compact.Config{
		Store: w.store, State: w.state.State, Log: w, Writer: w.log, Epoch: w.log.Epoch(), Logger: slog.New(slog.DiscardHandler),
	})
	generation := w.log.Epoch() << 32
	for lsn := visible + 10; ; lsn += 10 {
		select {
		case <-w.stop:
			return errDone
		default:
		}
		all := frames(lsn, w.rnd)
		for len(all) > 0 {
			n := 1 + w.rnd.IntN(len(all))
			if _, err := w.append(ctx, all[:n]...); err != nil {
				return err
			}
			all = all[n:]
		}
		switch w.rnd.IntN(60) {
		case 0, 1, 2, 6, 7, 8:
			before := len(w.state.Packs())
			err := c.Work(ctx, w.rnd.IntN(3) == 0)
			if len(w.state.Packs()) > before {
				w.packs.Add(1)
			}
			if err == nil {
				continue
			} else if errors.Is(err, shapelog.ErrFenced) || w.log.Err() != nil {
				return err
			}
		case 3:
			generation++
			if err := w.checkpoint(ctx, generation); err != nil {
				return err
			}
		case 4:
			if w.rnd.IntN(4) == 0 {
				return errors.New("killed")
			}
		case 5:
			pause(ctx, time.Duration(w.rnd.IntN(100))*time.Millisecond)
		}
	}
}

// checkpoint does what ingest does every few seconds. A store that fails is no reason to end.
func (w *writer) checkpoint(ctx context.Context, generation uint64) error {
	c, floor := w.state.Checkpoint(), w.state.Floor()
	if err := c.Save(ctx, w.store, generation); err != nil {
		return nil
	}
	for w.Durable() < c.Seq {
		if w.log.Err() != nil {
			return w.log.Err()
		}
		pause(ctx, time.Millisecond)
	}
	err := w.log.Checkpoint(ctx, shapelog.Checkpoint{Generation: generation, Seq: c.Seq, Shards: len(c.Shards)})
	if err == nil {
		err = w.log.Retire(ctx, min(floor, c.Seq+1))
	}
	if errors.Is(err, shapelog.ErrFenced) {
		return err
	}
	return nil
}

func openedRecord(id shape.ID) segment.Record {
	return catalog.OpenedRecord(&catalog.Info{
		ID: id, Definition: shape.Definition{Table: shape.Table{Schema: "public", Name: "t"}}.Canonical(), Canonical: id.String(),
		Relation: &pg.Relation{OID: 7, Schema: "public", Name: "t", Columns: []pg.Column{{Name: "id", PK: 1}}},
		Columns:  []int{0}, Schema: json.RawMessage(`{"id":{"type":"int4"}}`), Snapshot: pg.Snapshot{Xmin: 3, Xmax: 3},
	}, &catalog.Base{Pages: 1})
}
