// Package rebase gives shapes new bases: the rows of the base before and what the log made of them, without asking
// Postgres. It owns when a history is worth folding, how long what a new base supersedes is kept, and the folding. What
// the records mean is internal/catalog's; pages are stored by ingest/base.
//
// The one idea: everything collapses in a base, because nobody enters it half-way, and nothing else changes: who reads
// the log behind an older base goes on undisturbed.
package rebase

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/shapeline/shapeline/ingest/base"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/entries"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	// HistoryMin is how much log a shape must have behind its base before that is replaced while changes go on; and it
	// must be more than the base.
	HistoryMin = 8 << 20

	// A share of that is enough once there have been no changes for a while; and it must be more than 1/settledShare of
	// the base. Together, all that settled shapes are given may not be more than the log has brought.
	settledPart  = 128
	settledShare = 8
	settledStart = 64 << 20

	// partBytes bounds the log that is folded at once, and so the memory that it takes. A longer history is folded in
	// parts, by key.
	partBytes = 64 << 20

	// RetentionDefault is how long a superseded base and the log before its successor are kept: browsers may hold the
	// first page of a shape for a week (design, section 2).
	RetentionDefault = 8 * 24 * time.Hour
)

// Log is the pipeline, as the rebaser needs it.
type Log interface {
	// Append puts a record into the log and returns once it is durable.
	Append(ctx context.Context, r segment.Record) error
}

// Config is what a Rebaser works on.
type Config struct {
	Store     object.Store
	State     *catalog.State // of everything in the pipeline, which others apply to
	Log       Log
	PageBytes int // at most, of a page
	Retention time.Duration
	Least     uint64 // instead of HistoryMin
	Logger    *slog.Logger
}

// Rebaser gives the shapes of one log new bases. It is for one goroutine, the one that also collects garbage: pages
// that nothing refers to yet would be garbage.
type Rebaser struct {
	cfg    Config
	reader *entries.Reader
	earned uint64 // what may still be spent on settled shapes, bytes
	failed map[shape.ID]bool
}

// New returns a rebaser.
func New(cfg Config) *Rebaser {
	if cfg.Retention == 0 {
		cfg.Retention = RetentionDefault
	}
	if cfg.Least == 0 {
		cfg.Least = HistoryMin
	}
	return &Rebaser{cfg: cfg, reader: entries.NewReader(cfg.Store), earned: settledStart, failed: make(map[shape.ID]bool)}
}

// Earn says that the log has grown by n bytes.
func (r *Rebaser) Earn(n uint64) { r.earned += n }

// SettledMin is how much log a shape must have for a new base once the log is at rest.
func (r *Rebaser) SettledMin() uint64 { return max(r.cfg.Least/settledPart, 1) }

// Work makes the bases that are due. settled says that there have been no changes for a while.
func (r *Rebaser) Work(ctx context.Context, settled bool) error {
	least := r.cfg.Least
	if settled {
		least = r.SettledMin()
	}
	for _, h := range r.cfg.State.Histories(least) {
		if r.failed[h.ID] || h.Definition.Log == shape.LogChangesOnly || !r.due(&h, settled) {
			continue
		}
		err := r.rebase(ctx, &h)
		switch {
		case errors.Is(err, entries.ErrMoved), errors.Is(err, object.ErrNotFound):
			continue // dropped or packed meanwhile: the next look sees what there is
		case errors.Is(err, errHistory), errors.Is(err, shape.ErrNotChange), errors.Is(err, segment.ErrCorrupt):
			r.failed[h.ID] = true
			r.cfg.Logger.Error("a shape gets no new base; drop it, and its clients start over", "shape", h.ID.String(), "err", err)
		case err != nil:
			return fmt.Errorf("new base of shape %s: %w", h.ID, err)
		}
	}
	return nil
}

// due reports whether a history is worth a new base.
func (r *Rebaser) due(h *catalog.History, settled bool) bool {
	rows := h.NewestBase().Bytes
	if h.Bytes >= r.cfg.Least && h.Bytes > rows {
		return true
	}
	if !settled || h.Bytes < rows/settledShare || rows+h.Bytes > r.earned {
		return false
	}
	r.earned -= rows + h.Bytes
	return true
}

// rebase makes the base that follows all of h.
func (r *Rebaser) rebase(ctx context.Context, h *catalog.History) error {
	began := time.Now()
	old := *h.NewestBase()
	next := shape.Handle{Shape: h.ID, Base: rand.Uint32N(1<<32-1) + 1}
	at := h.Packed[len(h.Packed)-1].Last
	w := base.NewWriter(ctx, r.cfg.Store, next, r.cfg.PageBytes, func() error { return nil })
	defer w.Abandon()
	proj := shape.NewProjection(h.Relation, h.Columns, h.Definition.Replica)
	emit := func(c *shape.Change) error { return w.Change(proj, c) }
	seed, parts := maphash.MakeSeed(), int(h.Bytes/partBytes)+1
	for part := range parts {
		if err := r.fold(ctx, h, newFold(seed, part, parts), old.Pages, at, emit); err != nil {
			return err
		}
	}
	made, err := w.End(snapshotOf(h))
	if err != nil {
		return err
	}
	record := catalog.RebasedRecord(h.ID, catalog.Rebase{
		Gen: next.Base, At: at, Made: began.Unix(), Log: h.Bytes, Base: made,
	})
	if err := r.cfg.Log.Append(ctx, record); err != nil {
		return err
	}
	r.cfg.Logger.Debug("new base", "handle", next.String(), "rows", made.Rows, "bytes", made.Bytes, "was", old.Bytes,
		"log", h.Bytes, "took", time.Since(began))
	return nil
}

// snapshotOf is what the base's end says: the snapshot that the shape was opened with, because every transaction that it
// does not see may still come in the log of some handle, and must not be taken for one that is in the rows.
func snapshotOf(h *catalog.History) pg.Snapshot { return h.Snapshot }

// fold emits the rows of one part.
func (r *Rebaser) fold(
	ctx context.Context, h *catalog.History, f *fold, pages uint32, at shape.Offset, emit func(*shape.Change) error,
) error {
	begins := shape.SnapshotEnd
	if n := len(h.Rebases); n > 0 {
		begins = h.Rebases[n-1].At
	}
	err := r.reader.Each(ctx, h.ID, h.Packed, begins, at, func(m *segment.Message, _ segment.Ref) error {
		return f.take(m.Body)
	})
	if err != nil {
		return err
	}
	newest := h.Newest()
	for n := range pages {
		key := newest.PageKey(n)
		o, err := r.cfg.Store.Get(ctx, key, object.Range{})
		if err != nil {
			return fmt.Errorf("get %s: %w", key, err)
		}
		p, err := segment.DecodePage(o.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if err := shape.Messages(p.Body, func(m []byte) error {
			if isControl(m) {
				return nil
			}
			return f.row(m, emit)
		}); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return f.rest(emit)
}

// isControl reports whether a message is none about a row: snapshot-end.
func isControl(m []byte) bool { return strings.HasPrefix(string(m[:min(len(m), 11)]), `{"headers":`) }

// Trim ends the retention of what was superseded long enough ago.
func (r *Rebaser) Trim(ctx context.Context, now time.Time) error {
	before := now.Add(-r.cfg.Retention).Unix()
	for _, sh := range r.cfg.State.Shapes() {
		for i := len(sh.Rebases) - 1; i >= 0; i-- {
			if sh.Rebases[i].Made > before {
				continue
			}
			if sh.Rebases[i].At.Compare(sh.Trimmed) > 0 {
				if err := r.cfg.Log.Append(ctx, catalog.TrimmedRecord(sh.ID, sh.Rebases[i].At)); err != nil {
					return fmt.Errorf("end the retention of shape %s: %w", sh.ID, err)
				}
			}
			break
		}
	}
	return nil
}
