// Package ingest is the pipeline from Postgres to the bucket: it follows the replication stream, finds the shapes
// that each change touches, renders each change once, and writes frames to the log; it opens shapes, reading their
// first rows by COPY; and it tells Postgres what it may forget. One ingest is active for a database and a bucket;
// others wait for it to end.
//
// It does not answer clients (serve does, from the bucket), and it knows neither the replication protocol's bytes
// (pgoutput), nor connections (postgres), nor how a WHERE clause is judged (where, match).
//
// The one idea: one goroutine owns the pipeline's state, and everything that must happen between two transactions
// happens there, as a command; whatever fails ends the term, and the next one starts from what the bucket holds.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/ingest/inbox"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

const (
	backoffMin   = 100 * time.Millisecond // between terms
	backoffMax   = 10 * time.Second
	backoffReset = 30 * time.Second // a term that lasted this long was a good one
	activeWait   = 5 * time.Second  // how long an Open waits for a term (protocol reference, 8.1)
	closeTimeout = 5 * time.Second  // to end a term in order

	// requestsWithFeed is the pause between looks at requests/ while a serve process has the feed and there are changes.
	requestsWithFeed = 10 * time.Second

	// ChunkBytesDefault is ELECTRIC_SHAPE_CHUNK_BYTES_THRESHOLD's default.
	ChunkBytesDefault = 10 << 20
)

// Config says what to follow and where to write. Zero fields mean the defaults.
type Config struct {
	Postgres      postgres.Config
	Store         object.Store
	Log           *slog.Logger
	FlushInterval time.Duration // between segments under load; default the store's

	// RequestsInterval is the pause between looks at requests/. By default it is the store's ListInterval; while a serve
	// process has the feed, and so asks by HTTP, it is 10 s, and there are no looks at all while nothing happens.
	RequestsInterval time.Duration

	ChunkBytes uint64        // from which size on a chunk of a shape's log is closed
	Retention  time.Duration // of what a new base supersedes; default 8 days

	Feed *feed.Hub // where frames go before they are in the bucket
	// Progress, if set, is told of snapshots; it must not block.
	Progress func(Progress)
}

// Service is the ingest of one database into one bucket.
type Service struct {
	cfg       Config
	log       *slog.Logger
	db        atomic.Pointer[postgres.DB]
	snapshots chan struct{} // a token for each COPY under way

	wait   sync.WaitGroup // goroutines of the term
	logged atomic.Uint64  // the last segment that began to be stored

	mu      sync.Mutex
	status  Status
	term    *term
	changed chan struct{} // closed when status or term changes
}

// term is an engine that is running, as Open sees it.
type term struct {
	engine *engine
	ctx    context.Context // ends with the engine
}

// New returns a service that Run will start.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.FlushInterval == 0 {
		cfg.FlushInterval = cfg.Store.Caps().FlushInterval
	}
	if cfg.Feed == nil {
		cfg.Feed = &feed.Hub{}
	}
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = ChunkBytesDefault
	}
	return &Service{
		cfg: cfg, log: cfg.Log, snapshots: make(chan struct{}, snapshotsMax), changed: make(chan struct{}),
		status: Status{State: Starting, Reason: "not connected to Postgres yet"},
	}
}

// Run follows the database until ctx ends, reconnecting with back-off, and returns ctx's cause; or a permanent error
// that only a person can mend, such as a wrong password at the first connection.
func (s *Service) Run(ctx context.Context) error {
	if err := object.SelfTest(ctx, s.cfg.Store); err != nil {
		return err
	}
	var requests sync.WaitGroup
	requestsCtx, stop := context.WithCancel(ctx)
	requests.Go(func() { s.watchRequests(requestsCtx) })
	defer func() { stop(); requests.Wait() }()

	backoff, connected := backoffMin, false
	for {
		started := time.Now()
		err := s.runTerm(ctx, &connected)
		s.set(Status{State: Starting, Reason: reason(err)}, nil)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !connected && postgres.Permanent(err) {
			return err
		}
		if time.Since(started) > backoffReset {
			backoff = backoffMin
		}
		s.log.Warn("ingest interrupted; it starts again", "err", err, "in", backoff.String())
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// runTerm connects, waits for its turn, takes the log over and runs the pipeline. connected is set once Postgres has
// been found fit.
func (s *Service) runTerm(ctx context.Context, connected *bool) error {
	db, err := postgres.Open(ctx, s.cfg.Postgres)
	if err != nil {
		return err
	}
	defer db.Close()
	*connected = true
	s.db.Store(db)

	session, err := db.Acquire(ctx, func(why string) {
		s.log.Info("waiting", "for", why)
		s.set(Status{State: Waiting, Reason: why}, nil)
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = session.Close(ctx) // the term has ended already, for a better reason
	}()
	s.set(Status{State: Starting, Reason: "taking over the log"}, nil)

	e := &engine{s: s, stream: session, state: catalog.New(), commands: make(chan func(), commandsMax)}
	e.again, e.stopped = make(chan struct{}, 1), make(chan struct{})
	e.durable.changed, e.durable.grown = make(chan struct{}, 1), make(chan struct{}, 1)
	e.byIdent = make(map[string]*member)
	e.tables = make(map[pg.OID]*table)
	e.chunkBytes = s.cfg.ChunkBytes
	e.drop = e.endShape
	e.writer, err = shapelog.OpenWriter(ctx, s.cfg.Store, recovery{e, s.cfg.Store}, shapelog.WriterOptions{
		OnDurable: func(m segment.Meta) {
			e.durable.stored(m)
			s.cfg.Feed.Durable(m.Seq)
		},
	})
	if err != nil {
		return fmt.Errorf("take over the log: %w", err)
	}
	err = s.pipeline(ctx, e, session)
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, e.writer.Close(closeCtx))
}

// pipeline runs e until something fails, and waits for everything that it started.
func (s *Service) pipeline(ctx context.Context, e *engine, session *postgres.Session) error {
	_, _, e.visible, e.end = e.state.Position()
	e.seq = e.writer.Next()
	e.durable.seq, e.durable.end = e.seq-1, e.end
	e.checkpointed, e.pause = time.Now(), checkpointEvery

	ctx, cancel := context.WithCancelCause(ctx)
	defer s.wait.Wait()
	defer cancel(nil)
	s.cfg.Feed.Begin(e.writer.Epoch(), e.seq)
	defer s.cfg.Feed.End()
	if err := e.resume(ctx, session); err != nil {
		return err
	}
	s.log.Info("following the replication stream", "from", e.end.String(), "shapes", len(e.byIdent))
	s.set(Status{State: Active}, &term{e, ctx})
	defer s.set(Status{State: Starting, Reason: "reconnecting"}, nil)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.run(ctx) })
	group.Go(func() error { return e.compactor().Run(ctx, e.durable.grown) })
	group.Go(func() error {
		select {
		case <-e.writer.Done():
			return e.writer.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	err := group.Wait()
	cancel(err)
	return err
}

// resume takes up the shapes of the log, unless they belong to another source. When the slot is not there the log
// says so first, durably: a crash in between must not leave shapes that a new slot seems to continue.
func (e *engine) resume(ctx context.Context, session *postgres.Session) error {
	source := catalog.Source{System: session.SystemID, Database: session.Database, Slot: e.s.db.Load().SlotName()}
	had := e.state.Source()
	source.Made = had.Made
	if session.SlotNew || had != source {
		source.Made = e.newID().String()
		if n := len(e.state.Shapes()); n > 0 {
			e.s.log.Warn("the stream does not continue the log: all shapes start over", "shapes", n, "had", had, "have", source)
		}
		e.frame.records = append(e.frame.records, catalog.SourceRecord(source))
		e.visible, e.end = 0, 0
		if err := e.appendNow(ctx); err != nil {
			return err
		}
	} else if err := e.adopt(ctx); err != nil {
		return err
	}
	if err := session.Start(ctx, e.end); err != nil {
		return err
	}
	if session.Confirmed > 0 {
		// What was confirmed is durable, or touched no shape; the next commit may begin right there.
		e.visible, e.end = max(e.visible, session.Confirmed-1), max(e.end, session.Confirmed)
	}
	return nil
}

// appendNow stores the frame being built and waits for it.
func (e *engine) appendNow(ctx context.Context) error {
	e.lastFlush = time.Time{}
	if err := e.flush(ctx); err != nil {
		return err
	}
	select {
	case <-e.durable.wait(e.seq - 1):
		return nil
	case <-e.writer.Done():
		return e.writer.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// recovery rebuilds the state from the log.
type recovery struct {
	e     *engine
	store object.Store
}

func (r recovery) Load(ctx context.Context, c shapelog.Checkpoint) error {
	r.e.catalogs = nil
	if c.Generation != 0 {
		r.e.catalogs = []uint64{c.Generation}
	}
	return r.e.state.Load(ctx, r.store, c.Generation, c.Shards)
}

func (r recovery) Apply(seg *segment.Segment) error {
	_, err := r.e.state.Apply(seg.Meta, seg.Frames)
	return err
}

// Open finds or creates the shape for a definition. It returns once the shape is in the log; the error is a
// *shape.Refusal, or ctx's.
func (s *Service) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	t, err := s.active(ctx)
	if err != nil {
		return shape.Handle{}, err
	}
	p, err := s.prepare(ctx, d)
	if err != nil {
		return shape.Handle{}, err
	}
	var m *member
	var o *opening
	if err := t.engine.command(ctx, func() { m, o = t.engine.find(t.ctx, p) }); err != nil {
		return shape.Handle{}, s.unavailable(err)
	}
	if o != nil {
		select {
		case <-o.done:
		case <-t.ctx.Done():
			return shape.Handle{}, s.unavailable(context.Cause(t.ctx))
		case <-ctx.Done():
			return shape.Handle{}, context.Cause(ctx)
		}
		if o.err != nil {
			return shape.Handle{}, o.err
		}
	} else if err := t.engine.stored(ctx); err != nil {
		return shape.Handle{}, s.unavailable(err)
	}
	if err := catalog.PutPointer(ctx, s.cfg.Store, d, m.info.Handle()); err != nil {
		return shape.Handle{}, s.unavailable(err)
	}
	return m.info.Handle(), nil
}

// Drop ends a shape. That there is none is no error.
func (s *Service) Drop(ctx context.Context, h shape.Handle) error {
	t, err := s.active(ctx)
	if err != nil {
		return err
	}
	e := t.engine
	if err := e.command(ctx, func() {
		for _, m := range e.byIdent {
			if m.id == h.Shape {
				e.endShape(m, nil)
				return
			}
		}
	}); err != nil {
		return s.unavailable(err)
	}
	if err := e.stored(ctx); err != nil {
		return s.unavailable(err)
	}
	return nil
}

// watchRequests answers what is asked through the bucket until ctx ends.
func (s *Service) watchRequests(ctx context.Context) {
	var seen uint64
	var looked time.Time
	always := s.cfg.RequestsInterval != 0
	interval := s.cfg.RequestsInterval
	if !always {
		interval = max(s.cfg.Store.Caps().ListInterval, time.Millisecond)
	}
	inbox.Watch(ctx, inbox.Config{
		Store: s.cfg.Store, Shapes: s, Interval: interval, Log: s.log,
		Active: func() bool { return s.Status().State == Active },
		Rest: func() bool {
			if always || s.cfg.Feed.Subscribers() == 0 {
				return false
			}
			logged := s.logged.Load()
			if logged == seen || time.Since(looked) < requestsWithFeed {
				return true
			}
			seen, looked = logged, time.Now()
			return false
		},
	})
}

func (s *Service) unavailable(err error) error {
	s.log.Info("request not served", "err", err)
	return shape.Unavailable(openRetryAfter, "Failed to create shape, please retry")
}

func list(names []string) string { return strings.Join(names, ", ") }
