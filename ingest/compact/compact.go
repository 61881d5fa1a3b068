// Package compact keeps the bucket small while the log grows: it merges segments into packs, says in the log that
// they are there, raises the floor below which segments are dead, and deletes those. It owns when and how much; what a
// packed record means is internal/catalog's, and which deletions are safe is internal/shapelog's.
//
// It runs inside ingest, while that is the active writer. The one idea: a pack is written first and spoken of later,
// in the log itself, so that every reader changes over at the same place, and whatever a process that has lost the
// log still writes is a file that nobody speaks of.
package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/ingest/rebase"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/garbage"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shapelog"
)

const (
	// segmentsMin is how many segments are packed at least, so that a pack is worth its requests.
	segmentsMin = 32

	// segmentsMax and packBytes bound a pack, and with it the memory that making and reading it takes.
	segmentsMax = 256
	packBytes   = 8 << 20

	segmentsAhead = 4 // read at the same time

	// settleAfter is how long no segment must have come for the log to be at rest: then less is packed than else,
	// settledSegments or what a shape needs for a new base, and shapes get bases that are worth it to whoever comes next.
	settleAfter     = 10 * time.Second
	settledSegments = 8

	retryMin = time.Second
	retryMax = time.Minute

	// sweepEvery and collectEvery are the pauses between sweeps of dead segments, and between looks for garbage of all
	// kinds, while there is work.
	sweepEvery   = time.Minute
	collectEvery = time.Hour

	// collectAge is how old garbage is when it is deleted. It is longer than shapelog.Grace, within which readers
	// may have plans with what has been packed since.
	collectAge = 2 * shapelog.Grace

	// lateAfter is how long after a pack was stored a record of it is believed without another look: what is not
	// spoken of is garbage, and deleted once it is old.
	lateAfter = shapelog.Grace / 4
)

// Log is the pipeline, as the compactor needs it.
type Log interface {
	// Durable returns the last segment that is durable with all before it.
	Durable() uint64
	// Append puts a record into the log and returns once it is durable.
	Append(ctx context.Context, r segment.Record) error
}

// Segments is the log's writer: it reads what is durable, and deletes what lies below the log's floor.
type Segments interface {
	Read(ctx context.Context, seq uint64) (*segment.Segment, error)
	Sweep(ctx context.Context) (deleted int, err error)
}

// Config is what a Compactor works on.
type Config struct {
	Store  object.Store
	State  *catalog.State // of everything in the pipeline, which others apply to
	Log    Log
	Writer Segments
	Epoch  uint64 // of the writer
	Logger *slog.Logger

	PageBytes int           // of the pages of new bases, at most
	Retention time.Duration // of what a new base supersedes; default rebase.RetentionDefault
	History   uint64        // how much log makes a new base worth it; default rebase.HistoryMin
}

// Compactor packs one log. It is for one goroutine.
type Compactor struct {
	cfg  Config
	next uint64 // the first segment that is not packed, or known to hold nothing

	rebaser *rebase.Rebaser

	swept, collected time.Time
}

// New returns a compactor that goes on where the state says that the last one ended.
func New(cfg Config) *Compactor {
	return &Compactor{cfg: cfg, next: cfg.State.Floor(), swept: time.Now(), rebaser: rebase.New(rebase.Config{
		Store: cfg.Store, State: cfg.State, Log: cfg.Log, PageBytes: cfg.PageBytes, Retention: cfg.Retention,
		Least: cfg.History, Logger: cfg.Logger,
	})}
}

// Run packs each time that wake says that segments have become durable, and once more when none has for a while, until
// ctx ends or another writer has taken over. It does nothing in between (R7).
func (c *Compactor) Run(ctx context.Context, wake <-chan struct{}) error {
	pause := retryMin
	settle := time.NewTimer(settleAfter)
	defer settle.Stop()
	for {
		settled := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wake:
			settle.Reset(settleAfter)
		case <-settle.C:
			settled = true
		}
		err := c.Work(ctx, settled)
		switch {
		case err == nil:
			pause = retryMin
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, shapelog.ErrFenced):
			return err
		}
		c.cfg.Logger.Warn("segments not packed; trying again", "in", pause.String(), "err", err)
		retry := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
		retry.Stop()
		pause = min(2*pause, retryMax)
		settle.Reset(settleAfter)
	}
}

// Work packs what there is to pack, makes the bases that are due, and sweeps now and then. settled says that the log is
// at rest.
func (c *Compactor) Work(ctx context.Context, settled bool) error {
	least, packed := uint64(segmentsMin), settled
	if settled {
		least = settledSegments
		if c.cfg.State.Loose() >= c.rebaser.SettledMin() {
			least = 1
		}
	}
	for {
		last := min(c.cfg.Log.Durable(), c.cfg.State.Packable())
		if last < c.next || last-c.next+1 < least {
			break
		}
		if err := c.pack(ctx, min(last, c.next+segmentsMax-1)); err != nil {
			return err
		}
		packed = true
	}
	if packed {
		if err := c.rebaser.Work(ctx, settled); err != nil {
			return err
		}
	}
	if time.Since(c.swept) < sweepEvery {
		return nil
	}
	c.swept = time.Now()
	n, err := c.cfg.Writer.Sweep(ctx)
	if n > 0 {
		c.cfg.Logger.Debug("dead segments deleted", "segments", n)
	}
	if err != nil {
		return err
	}
	if err := c.rebaser.Trim(ctx, time.Now()); err != nil || time.Since(c.collected) < collectEvery {
		return err
	}
	c.collected = time.Now()
	return c.collect(ctx)
}

// collect deletes garbage. The sweep before it has just found that the log is still ours.
func (c *Compactor) collect(ctx context.Context) error {
	seq, _, _, _ := c.cfg.State.Position()
	now, err := garbage.Clock(ctx, c.cfg.Store)
	if err != nil {
		return err
	}
	items, err := garbage.Find(ctx, c.cfg.Store, c.cfg.State, now.Add(-collectAge))
	if err != nil {
		return err
	}
	if c.cfg.Log.Durable() < seq {
		return nil // a shape may have been dropped that is there again after a crash; the next look finds the same
	}
	if len(items) > 0 {
		c.cfg.Logger.Info("deleting what nothing refers to", "objects", len(items))
	}
	return garbage.Delete(ctx, c.cfg.Store, items, nil)
}

// pack packs segments from c.next up to last, or fewer if those fill a pack.
func (c *Compactor) pack(ctx context.Context, last uint64) error {
	p := newPacker(c.cfg.State.Stretches(c.next, last))
	end := c.next
	for ; end <= last && p.bytes() < packBytes; end += segmentsAhead {
		n := int(min(segmentsAhead, last-end+1))
		if err := c.read(ctx, p, end, n); err != nil {
			return err
		}
	}
	end = min(end-1, last)
	body, meta := p.seal(segment.Meta{Seq: end, Epoch: c.cfg.Epoch})
	if body == nil { // nothing in there concerns a shape that is alive
		c.next = end + 1
		return nil
	}
	pack := catalog.Pack{Level: 1, First: c.next, Last: end, Sum: meta.Sum, Size: int64(len(body))}
	began := time.Now().Round(0) // by the wall clock, which goes on while a machine sleeps
	if err := c.put(ctx, pack.Key(), body); err != nil {
		return err
	}
	if err := c.cfg.Log.Append(ctx, catalog.PackedRecord(pack, nil)); err != nil {
		return fmt.Errorf("record %s: %w", pack.Key(), err)
	}
	if time.Now().Round(0).Sub(began) > lateAfter { // it may have been collected before it was spoken of
		if err := c.put(ctx, pack.Key(), body); err != nil {
			return err
		}
	}
	c.next = end + 1
	c.rebaser.Earn(uint64(pack.Size))
	c.cfg.Logger.Debug("packed", "first", pack.First, "last", pack.Last, "bytes", pack.Size)
	return nil
}

// read adds n segments from seq on to p.
func (c *Compactor) read(ctx context.Context, p *packer, seq uint64, n int) error {
	read := make([]*segment.Segment, n)
	group, ctx := errgroup.WithContext(ctx)
	for i := range read {
		if !p.wants(seq + uint64(i)) {
			continue
		}
		group.Go(func() error {
			var err error
			if read[i], err = c.cfg.Writer.Read(ctx, seq+uint64(i)); err != nil {
				return fmt.Errorf("pack: %w", err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, s := range read {
		if s != nil {
			p.add(s)
		}
	}
	return nil
}

// put stores a pack. Its name says what is in it, so that one that is there already is the same.
func (c *Compactor) put(ctx context.Context, key string, body []byte) error {
	if _, err := c.cfg.Store.Put(ctx, key, body, object.IfAbsent()); err != nil && !errors.Is(err, object.ErrExists) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}
