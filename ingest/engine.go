package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shapeline/shapeline/ingest/base"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

const (
	segmentBytesMax   = 4 << 20          // a segment is flushed at this size, whatever the interval
	turnEventsMax     = 4096             // events between two looks at commands and timers
	commandsMax       = 256              // commands waiting for the pipeline; askers block beyond
	bufferedBytesMax  = 64 << 20         // changes held for all openings together; the shape that passes it is refused
	checkpointEvery   = 10 * time.Second // while there is work
	checkpointLoadMax = 20               // a checkpoint may take 1/20 of the time
	catalogsKept      = 3                // generations; a reader may be loading the one before the newest
)

// engine is one term of being the active writer: it has the slot and the log until something fails, and then a new
// one starts from what is durable.
type engine struct {
	turn
	s       *Service
	stream  stream
	writer  *shapelog.Writer
	state   *catalog.State // everything appended so far, durable or not
	byIdent map[string]*member
	bySlot  uint64 // the next member's number

	builder    segment.Builder
	frames     bool // builder has something
	awaited    bool // somebody waits for it to be durable
	seq        uint64
	lastFlush  time.Time
	flushTimer *time.Timer
	commands   chan func()
	stopped    chan struct{} // closed when the pipeline has ended: commands are no longer run
	again      chan struct{} // holds a token when a turn ended before the stream did
	walEnd     pg.LSN        // by the last keepalive outside a transaction

	checkpointed time.Time     // when the last one ended
	checkpoint   chan error    // not nil while one is being stored
	pause        time.Duration // until the next
	generation   uint64        // of the last one begun: the writer's epoch, then a count, so that no two writers share one
	catalogs     []uint64      // generations that are stored, oldest first

	durable durable
}

// stream is the replication session. It reads ahead by itself, within bounds: when the pipeline is slower than
// Postgres, WAL waits in Postgres.
type stream interface {
	Ready() <-chan struct{}              // holds a token when Next may have something
	Next() (postgres.Event, bool, error) // without waiting; the event is valid until the next call
	Confirm(lsn pg.LSN)
}

// durable is what the log has stored, and who waits for it.
type durable struct {
	changed chan struct{} // capacity 1; for the pipeline
	grown   chan struct{} // capacity 1; for the compactor

	mu      sync.Mutex
	seq     uint64
	end     pg.LSN
	waiters []durableWaiter // by seq
}

type durableWaiter struct {
	seq  uint64
	done chan struct{}
}

// stored is the log's callback: seq and everything before it are durable.
func (d *durable) stored(m segment.Meta) {
	d.mu.Lock()
	d.seq = m.Seq
	d.end = max(d.end, m.End)
	n := 0
	for n < len(d.waiters) && d.waiters[n].seq <= m.Seq {
		close(d.waiters[n].done)
		n++
	}
	d.waiters = d.waiters[n:]
	d.mu.Unlock()
	for _, c := range []chan struct{}{d.changed, d.grown} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// wait returns a channel that is closed once seq is durable.
func (d *durable) wait(seq uint64) <-chan struct{} {
	done := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if seq <= d.seq {
		close(done)
		return done
	}
	d.waiters = append(d.waiters, durableWaiter{seq, done})
	return done
}

func (d *durable) position() (uint64, pg.LSN) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seq, d.end
}

// run is the pipeline: one goroutine that owns everything in e but durable. It returns the first error.
func (e *engine) run(ctx context.Context) error {
	defer close(e.stopped)
	e.flushTimer = time.NewTimer(time.Hour)
	defer e.flushTimer.Stop()
	for {
		commands := e.commands
		if e.inTx {
			commands = nil // a shape is opened between transactions only
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.stream.Ready():
			if err := e.read(); err != nil {
				return err
			}
		case <-e.again:
			if err := e.read(); err != nil {
				return err
			}
		case cmd := <-commands:
			cmd()
		case <-e.durable.changed:
		case <-e.flushTimer.C:
		case err := <-e.checkpoint:
			if err := e.checkpointDone(err); err != nil {
				return err
			}
		}
		if err := e.flush(ctx); err != nil {
			return err
		}
		e.confirm()
		if err := e.startCheckpoint(ctx); err != nil {
			return err
		}
	}
}

// read takes what the session has received, within the bounds of a turn.
func (e *engine) read() error {
	for range turnEventsMax {
		ev, ok, err := e.stream.Next()
		if err != nil || !ok {
			return err
		}
		if ev.Data == nil {
			if !e.inTx {
				e.walEnd = max(e.walEnd, ev.WALEnd)
			}
			continue
		}
		if err := e.take(ev.Data); err != nil {
			return err
		}
		if len(e.frame.bodies) >= frameBytesMax {
			e.closeFrame()
		}
		if e.buffered > bufferedBytesMax {
			e.shed()
		}
	}
	select {
	case e.again <- struct{}{}:
	default:
	}
	return nil
}

// shed gives up the opening that holds the most: better one shape late than the pipeline without memory.
func (e *engine) shed() {
	var worst *member
	most := 0
	for _, m := range e.byIdent {
		if m.opening != nil && len(m.opening.buffer) > most {
			worst, most = m, len(m.opening.buffer)
		}
	}
	if worst != nil {
		e.endShape(worst, shape.Unavailable(failureRetryAfter,
			"The table changes faster than the shape's first rows can be read. Please retry later."))
	}
}

// closeFrame moves the frame being built into the segment being built.
func (e *engine) closeFrame() {
	var back []held
	if e.inTx {
		back = e.holdBack()
	}
	f := e.frame.seal(e.visible, e.end)
	if len(f.Messages) > 0 || len(f.Records) > 0 {
		e.s.cfg.Feed.Publish(e.seq, e.builder.Add(f))
		e.frames = true
		if _, err := e.state.Apply(segment.Meta{Seq: e.seq, Epoch: e.writer.Epoch()}, []segment.Frame{*f}); err != nil {
			panic(fmt.Sprintf("ingest made a frame that it cannot read: %v", err)) // our own records always decode
		}
	}
	e.frame.reset()
	e.putBack(back)
}

// flush stores what is due: at once when the log has been quiet, else at the end of the interval or when the
// segment is full. It blocks while the log's window is full: so the bucket's pace reaches Postgres.
func (e *engine) flush(ctx context.Context) error {
	if !e.inTx && !e.frame.empty() {
		e.closeFrame()
	}
	if !e.frames {
		return nil
	}
	interval := e.s.cfg.FlushInterval
	if e.awaited { // a long interval is meant for changes, which the feed carries
		interval = min(interval, e.s.cfg.Store.Caps().FlushInterval)
	}
	if wait := interval - time.Since(e.lastFlush); wait > 0 && e.builder.Len() < segmentBytesMax {
		e.flushTimer.Reset(wait)
		return nil
	}
	seq, err := e.writer.Append(ctx, &e.builder)
	if err != nil {
		return fmt.Errorf("append to the log: %w", err)
	}
	if seq != e.seq {
		return fmt.Errorf("append to the log: got slot %d, want %d", seq, e.seq)
	}
	e.frames, e.awaited, e.lastFlush = false, false, time.Now()
	e.s.logged.Store(e.seq)
	e.seq++
	return nil
}

// confirm tells Postgres what it may forget (R1): the end of the last transaction of which all is durable, or of
// everything read, once nothing waits to be stored.
func (e *engine) confirm() {
	seq, end := e.durable.position()
	if seq+1 == e.seq && !e.frames && e.frame.empty() && !e.inTx {
		end = max(end, e.end, e.walEnd)
	}
	if end > 0 {
		e.stream.Confirm(end)
	}
}

// errStopped is what commands get once the pipeline has ended.
var errStopped = errors.New("the pipeline has ended")

// command runs f on the pipeline's goroutine, between transactions, and waits for it. After an error f may still run.
func (e *engine) command(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case e.commands <- func() { f(); close(done) }:
	case <-e.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-e.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stored waits until everything that is in the pipeline now is durable. Call it outside the pipeline.
func (e *engine) stored(ctx context.Context) error {
	var seq uint64
	if err := e.command(ctx, func() {
		seq = e.seq - 1
		if e.frames || !e.frame.empty() {
			seq, e.awaited = e.seq, true
		}
	}); err != nil {
		return err
	}
	select {
	case <-e.durable.wait(seq):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startCheckpoint begins to store the catalogue, when it is time and the state is that of a whole segment.
func (e *engine) startCheckpoint(ctx context.Context) error {
	if e.checkpoint != nil || e.frames || !e.frame.empty() || e.lastFlush.Before(e.checkpointed) ||
		time.Since(e.checkpointed) < e.pause {
		return nil
	}
	c := e.state.Checkpoint()
	e.generation = max(e.generation+1, e.writer.Epoch()<<32)
	generation, remove := e.generation, uint64(0)
	if len(e.catalogs) >= catalogsKept {
		remove, e.catalogs = e.catalogs[0], e.catalogs[1:]
	}
	e.checkpoint = make(chan error, 1)
	stored, floor := e.durable.wait(c.Seq), min(e.state.Floor(), c.Seq+1)
	e.s.wait.Go(func() {
		started := time.Now()
		err := e.storeCheckpoint(ctx, c, generation, stored)
		if err == nil {
			err = e.writer.Retire(ctx, floor)
		}
		if err == nil && remove != 0 {
			err = catalog.Remove(ctx, e.s.cfg.Store, remove)
		}
		e.checkpoint <- err
		e.s.log.Debug("checkpoint", "generation", generation, "seq", c.Seq, "took", time.Since(started), "err", err)
	})
	e.checkpointed = time.Now()
	return nil
}

func (e *engine) storeCheckpoint(
	ctx context.Context, c catalog.Checkpoint, generation uint64, stored <-chan struct{},
) error {
	if err := c.Save(ctx, e.s.cfg.Store, generation); err != nil {
		return err
	}
	select {
	case <-stored:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := e.writer.Checkpoint(ctx, shapelog.Checkpoint{Generation: generation, Seq: c.Seq, Shards: len(c.Shards)})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

func (e *engine) checkpointDone(err error) error {
	e.checkpoint = nil
	e.catalogs = append(e.catalogs, e.generation)
	e.pause = max(checkpointEvery, checkpointLoadMax*time.Since(e.checkpointed))
	e.checkpointed = time.Now()
	if err == nil || !errors.Is(err, shapelog.ErrFenced) {
		if err != nil {
			e.s.log.Warn("checkpoint not stored; the next one will be", "err", err)
		}
		return nil
	}
	return err
}

// adopt takes up the shapes that the log has, as they were.
func (e *engine) adopt(ctx context.Context) error {
	for _, sh := range e.state.Shapes() {
		expr, err := where.Parse(sh.Definition.Where, sh.Relation, sh.Definition.Params)
		if refused := (*where.Error)(nil); errors.As(err, &refused) {
			// What an older build accepted: its clients ask again, and are told why.
			e.frame.records = append(e.frame.records, catalog.DroppedRecord(sh.ID, nil))
			continue
		} else if err != nil {
			return fmt.Errorf("take up shape %s: %w", sh.ID, err)
		}
		if sh.Base == nil {
			found, err := base.Find(ctx, e.s.cfg.Store, sh.Handle())
			if err != nil {
				return err
			}
			if found == nil { // the snapshot died with the process that read it
				e.frame.records = append(e.frame.records, catalog.DroppedRecord(sh.ID, nil))
				continue
			}
			e.frame.records = append(e.frame.records, catalog.ReadyRecord(sh.ID, *found))
		}
		snapshot := sh.Snapshot
		m := &member{id: sh.ID, info: sh.Info, canonical: sh.Canonical, unclosed: sh.Unclosed, snapshot: &snapshot}
		e.register(m, expr)
		e.filtering = append(e.filtering, m)
	}
	return nil
}

// register makes the matcher know m. A table that is no longer the one its shapes were opened on loses them.
func (e *engine) register(m *member, expr *where.Expr) {
	rel := m.info.Relation
	t := e.tables[rel.OID]
	if t != nil && !t.rel.SameRows(rel) {
		e.dropTable(t)
		t = nil
	}
	if t == nil {
		t = newTable(rel)
		e.tables[rel.OID] = t
	}
	e.bySlot++
	m.slot = e.bySlot
	t.add(m, expr)
	e.byIdent[m.canonical] = m
}

// endShape drops a shape: its clients start over, or are told why they cannot.
func (e *engine) endShape(m *member, why *shape.Refusal) {
	if m.gone {
		return
	}
	m.table.remove(m)
	if len(m.table.members) == 0 && e.tables[m.info.Relation.OID] == m.table {
		delete(e.tables, m.info.Relation.OID)
	}
	if e.byIdent[m.canonical] == m {
		delete(e.byIdent, m.canonical)
	}
	if m.opening != nil {
		e.forget(m.opening)
		m.opening.fail(why)
		return
	}
	e.frame.records = append(e.frame.records, catalog.DroppedRecord(m.id, why))
}
