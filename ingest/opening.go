package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/shapeline/shapeline/ingest/base"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	openingTimeout    = 45 * time.Second // until page 0 is stored
	snapshotRetry     = 50 * time.Millisecond
	snapshotsMax      = 8 // COPYs at a time; the others wait their turn
	openRetryAfter    = 1 // seconds, where trying again at once may do
	failureRetryAfter = 10
)

// errGone ends an opening whose shape was dropped meanwhile.
var errGone = errors.New("the shape was dropped while it was being opened")

// opening is a shape between being asked for and being in the log. The fields before the blank line belong to the
// pipeline's goroutine.
type opening struct {
	member *member
	buffer []entry  // what the stream had for it so far
	unread []pg.XID // transactions with rows that could not be read; the snapshot must have them
	before uint64   // how many transactions had been decoded when buffering began

	plan   *plan
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when err is set or the shape can be read
	err    error
}

type entry struct {
	xid    pg.XID
	offset shape.Offset
	body   []byte
	last   bool
}

// fail ends the opening from the pipeline's side.
func (o *opening) fail(why *shape.Refusal) {
	if why == nil {
		why = shape.Unavailable(openRetryAfter, "The table changed while the shape was being created, please retry")
	}
	o.cancel(why)
}

// plan is a definition that has been found to be good.
type plan struct {
	definition shape.Definition
	canonical  string
	rel        *pg.Relation
	columns    []int // selected, ascending
	expr       *where.Expr
}

// prepare validates a definition against the database. The error is a *shape.Refusal.
func (s *Service) prepare(ctx context.Context, d shape.Definition) (*plan, error) {
	rel, err := s.db.Load().Describe(ctx, d.Table)
	switch {
	case errors.Is(err, postgres.ErrNoTable):
		return nil, shape.Invalid("table", fmt.Sprintf(
			"Table %s does not exist. If the table name contains capitals or special characters you must quote it.", d.Table))
	case err != nil:
		s.log.Warn("describe table", "table", d.Table.String(), "err", err)
		return nil, shape.Unavailable(openRetryAfter,
			"Cannot connect to the database to verify the table. Please try again later.")
	case rel.Kind == "p":
		return nil, shape.Invalid("table", fmt.Sprintf(
			"Table %s is partitioned, which this version cannot follow. Ask for one of its partitions.", d.Table))
	}
	columns, err := selectColumns(rel, d.Columns, s.db.Load().ServerVersion())
	if err != nil {
		return nil, err
	}
	expr, err := where.Parse(d.Where, rel, d.Params)
	if refused := (*where.Error)(nil); errors.As(err, &refused) {
		return nil, shape.Invalid("where", refused.Error())
	} else if err != nil {
		s.log.Error("parse where: the parser does not work; restart the process", "err", err)
		return nil, shape.Unavailable(failureRetryAfter,
			"The where clause cannot be checked at the moment. Please retry later.")
	}
	ident, err := json.Marshal(struct {
		OID     pg.OID
		Table   shape.Table
		Columns []pg.Column
		Where   string
		Select  []int
		Replica shape.Replica
		Log     shape.LogMode
	}{rel.OID, d.Table, rel.Columns, expr.Canonical(), columns, d.Replica, d.Log})
	if err != nil {
		return nil, fmt.Errorf("identify shape: %w", err)
	}
	return &plan{definition: d, canonical: string(ident), rel: rel, columns: columns, expr: expr}, nil
}

// generatedColumns is the first server version that can send stored generated columns.
const generatedColumns = 180000

// selectColumns returns the places of the named columns, all if there are no names (protocol reference, 3.5).
func selectColumns(rel *pg.Relation, names []string, version int) ([]int, error) {
	var places []int
	if names == nil {
		for i := range rel.Columns {
			places = append(places, i)
		}
	}
	var missing, unknown, generated []string
	for _, name := range names {
		if at := rel.Index(name); at >= 0 {
			places = append(places, at)
		} else {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(places)
	places = slices.Compact(places)
	if rel.HasPK() {
		for _, at := range rel.Key() {
			if !slices.Contains(places, at) {
				missing = append(missing, rel.Columns[at].Name)
			}
		}
	}
	for _, at := range places {
		if rel.Columns[at].Generated && version < generatedColumns {
			generated = append(generated, rel.Columns[at].Name)
		}
	}
	hint := ""
	if names == nil {
		hint = ". You can exclude them from the shape by listing the columns you want"
	}
	switch {
	case missing != nil:
		return nil, shape.Invalid("columns",
			"The list of columns must include all primary key columns, missing: "+list(missing))
	case unknown != nil:
		return nil, shape.Invalid("columns", "The following columns are not found on the table: "+list(unknown))
	case generated != nil:
		return nil, shape.Invalid("columns",
			"The following columns are generated and cannot be included in the shape: "+list(generated)+hint)
	}
	return places, nil
}

// find returns the shape that answers p: an open one, or one that is being opened, by this call or an earlier one.
// It runs in the pipeline.
func (e *engine) find(ctx context.Context, p *plan) (*member, *opening) {
	if m := e.byIdent[p.canonical]; m != nil {
		return m, m.opening
	}
	info := &catalog.Info{
		ID: e.newID(), Definition: p.definition, Canonical: p.canonical, Relation: p.rel, Columns: p.columns,
		Schema: postgres.Schema(p.rel, p.columns),
	}
	o := &opening{plan: p, before: e.recent.n, done: make(chan struct{})}
	o.member = &member{id: info.ID, info: info, canonical: p.canonical, opening: o}
	e.register(o.member, p.expr)
	ctx, o.cancel = context.WithCancelCause(ctx)
	e.s.wait.Go(func() { e.open(ctx, o) })
	return o.member, o
}

// newID makes an ID that no shape of the bucket has or had: the time in microseconds, and random bits.
func (e *engine) newID() shape.ID {
	return shape.ID(uint64(time.Now().UnixMicro())<<12 | uint64(rand.Uint32N(1<<12)))
}

// open brings a shape into the log. ctx ends when the engine does or the opening is failed.
func (e *engine) open(ctx context.Context, o *opening) {
	defer o.cancel(nil)
	err := e.snapshot(ctx, o)
	if err == nil {
		return
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what ended the context says more than what noticed it
	}
	why := e.s.refusal(o, err)
	// The pipeline may be gone too: then there is nothing to take back.
	_ = e.command(context.WithoutCancel(ctx), func() { e.endShape(o.member, why) })
	select {
	case <-o.done: // its clients have a handle; the drop record tells them
	default:
		o.err = why
		close(o.done)
	}
}

// snapshot follows the order of the design, section 2: the stream is buffered already; now the publication, then
// the snapshot, then its rows in pages.
func (e *engine) snapshot(ctx context.Context, o *opening) error {
	select {
	case e.s.snapshots <- struct{}{}:
		defer func() { <-e.s.snapshots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	db, m := e.s.db.Load(), o.member
	if err := db.Publish(ctx, o.plan.rel); err != nil {
		return err
	}
	read := o.plan.columns
	for _, at := range o.plan.rel.Key() {
		read = append(slices.Clip(read), at)
	}
	slices.Sort(read)
	read = slices.Compact(read)
	snap, err := e.takeSnapshot(ctx, o, postgres.Query{
		Relation: o.plan.rel, Columns: read, Where: o.plan.expr.SQL(),
		SkipRows: o.plan.definition.Log == shape.LogChangesOnly,
	})
	if err != nil {
		return err
	}
	defer snap.Close()
	taken, _ := snap.Taken()
	opened := false
	w := base.NewWriter(ctx, e.s.cfg.Store, m.info.Handle(), int(e.chunkBytes), func() error {
		opened = true
		return e.opened(ctx, o, taken, nil)
	})
	defer w.Abandon()
	if o.plan.definition.Log != shape.LogChangesOnly {
		if err := e.s.copyRows(ctx, snap, o.plan, read, w); err != nil {
			return err
		}
	}
	stored, err := w.End(taken)
	if err != nil {
		return err
	}
	if !opened {
		return e.opened(ctx, o, taken, &stored)
	}
	return e.command(ctx, func() {
		if !m.gone {
			e.frame.records = append(e.frame.records, catalog.ReadyRecord(m.id, stored))
		}
	})
}

// copyRows renders the rows of a snapshot, which have the columns at the places in read, into pages.
func (s *Service) copyRows(ctx context.Context, snap *postgres.Snapshot, p *plan, read []int, w *base.Writer) error {
	progress := s.progress(w.Handle(), p.definition.Table)
	row := make(pg.Row, len(p.rel.Columns))
	proj := shape.NewProjection(p.rel, p.columns, p.definition.Replica)
	err := snap.Rows(ctx, func(r pg.Row) error {
		for i, at := range read {
			row[at] = r[i]
		}
		progress.add(w)
		return w.Row(proj, row)
	})
	progress.end(w)
	return err
}

// takeSnapshot takes snapshots until one sees every transaction that the stream had decoded before it was buffered for
// the shape: otherwise a commit that waits for a standby would be in neither (storage reference, 3c).
func (e *engine) takeSnapshot(ctx context.Context, o *opening, q postgres.Query) (*postgres.Snapshot, error) {
	deadline := time.Now().Add(openingTimeout)
	for {
		snap, err := e.s.db.Load().Snapshot(ctx, q)
		if err != nil {
			return nil, err
		}
		taken, _ := snap.Taken()
		unseen := false
		if err := e.command(ctx, func() { unseen = e.recent.unseen(taken, o.before) }); err != nil {
			snap.Close()
			return nil, err
		}
		if !unseen {
			return snap, nil
		}
		snap.Close()
		if time.Now().After(deadline) {
			return nil, shape.Unavailable(failureRetryAfter,
				"A committed transaction is not visible yet: it waits for a synchronous standby. Please retry later.")
		}
		select {
		case <-time.After(snapshotRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// opened puts the shape into the log and, once that is durable, lets its askers go on: each of them puts the handle
// under the definition that it asked by. stored is nil while pages are still to come.
func (e *engine) opened(ctx context.Context, o *opening, taken pg.Snapshot, stored *catalog.Base) error {
	var refused error
	if err := e.command(ctx, func() {
		if o.member.gone {
			refused = errGone
			return
		}
		for _, x := range o.unread {
			if !taken.Sees(x) {
				e.endShape(o.member, nil)
				refused = errGone
				return
			}
		}
		o.member.info.Snapshot = taken
		e.admit(o.member, stored)
	}); err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	if err := e.stored(ctx); err != nil {
		return err
	}
	close(o.done)
	return nil
}

// forget gives back what an opening holds in the pipeline.
func (e *engine) forget(o *opening) {
	for i := range o.buffer {
		e.buffered -= len(o.buffer[i].body)
	}
	o.buffer = nil
}

// refusal is what the clients of a failed opening see; the cause goes to the log.
func (s *Service) refusal(o *opening, err error) *shape.Refusal {
	var r *shape.Refusal
	if errors.As(err, &r) {
		return r
	}
	s.log.Warn("shape not opened", "table", o.plan.definition.Table.String(), "where", o.plan.definition.Where, "err", err)
	var table *postgres.TableError
	var snapshot *postgres.SnapshotError
	switch {
	case errors.As(err, &table):
		return shape.Unavailable(failureRetryAfter, table.Error())
	case errors.As(err, &snapshot):
		if snapshot.TableChanged {
			return &shape.Refusal{Status: http.StatusConflict}
		}
		if snapshot.Unexpected {
			return &shape.Refusal{Status: http.StatusInternalServerError, Message: snapshot.Error()}
		}
		return shape.Unavailable(failureRetryAfter, snapshot.Error())
	case errors.Is(err, object.ErrFull):
		return shape.Unavailable(failureRetryAfter, "The bucket is full. Free some space, then retry.")
	}
	return shape.Unavailable(openRetryAfter, "Failed to create shape, please retry")
}
