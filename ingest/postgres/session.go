package postgres

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	// holderTimeout is how long Postgres keeps a session whose process no longer answers, stopped by SIGSTOP among
	// it, streaming or not. It bounds how long a standby waits.
	holderTimeout = 5 * time.Second
	pingInterval  = time.Second            // before the stream runs: well within holderTimeout
	lockInterval  = 500 * time.Millisecond // between attempts to take the lock
	slotInterval  = 250 * time.Millisecond // between looks at a slot that somebody uses
	slotBusyMax   = 10 * time.Second       // a walsender that is ending gives its lock back before its slot
	askMax        = 10 * time.Second       // for a question to the catalogue, which waits for nobody
)

// Session is the replication connection of the one active holder of a stream. Confirm may be called at any time
// between Start and Close; the other methods by one goroutine at a time.
type Session struct {
	SystemID string // identifies the cluster: another one has nothing to do with this stream's past
	Timeline int32  // changes with a fail-over and a point-in-time recovery
	Database string

	// SlotNew says that changes may have been missed, or that there was never a slot: whatever was derived from this
	// stream before is void. Start creates the slot, so record that durably before: a crash in between finds SlotNew
	// again.
	SlotNew bool

	// Confirmed is the slot's own position, before which nothing comes again. With SlotNew it is zero until Start.
	Confirmed pg.LSN

	ReferenceXID       uint64 // a recent full transaction id, by which 32-bit ones are widened
	PublishesGenerated bool   // stored generated columns are in the stream (Postgres 18 and newer)

	db      *DB
	conn    *pgconn.PgConn
	waiting func(reason string)

	stop      context.CancelFunc // ends the goroutines that keep the connection alive
	reporting sync.WaitGroup     // ping, later report
	reading   sync.WaitGroup     // read
	ahead     *readAhead
	batch     *batch // what Receive hands out
	next      int    // in batch.events
	from      int    // in batch.data
	confirmed atomic.Uint64
	wake      chan struct{} // a status update is due; holds one token
	reads     atomic.Uint64 // messages read, for noticing that none comes
	parked    atomic.Bool   // read waits for room, not for the server
}

// Acquire becomes the holder of the stream: it connects, waits for the stream's advisory lock for as long as ctx
// allows, creates the publication if there is none, and looks at the slot. It calls waiting, which must be quick,
// with a sentence about what it waits for, now and when that changes; Start does so too, from another goroutine. It
// returns a *CheckError for what an operator has to put right. The caller closes the session.
func (db *DB) Acquire(ctx context.Context, waiting func(reason string)) (_ *Session, err error) {
	c := db.direct.Copy()
	c.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, explain(c, err)
	}
	defer func() {
		if err != nil {
			hangUp(ctx, conn)
		}
	}()
	s := &Session{db: db, conn: conn, wake: make(chan struct{}, 1), ahead: newReadAhead(), batch: &batch{}}
	said := ""
	s.waiting = func(reason string) {
		if reason != said {
			said = reason
			waiting(reason)
		}
	}

	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("identify the system: %w", err)
	}
	s.SystemID, s.Timeline, s.Database = system.SystemID, system.Timeline, system.DBName
	if err := s.configure(ctx); err != nil {
		return nil, fmt.Errorf("configure the replication connection: %w", err)
	}
	if err := s.lock(ctx); err != nil {
		return nil, fmt.Errorf("wait for the lock of the stream: %w", err)
	}
	if err := s.inspect(ctx); err != nil {
		return nil, err
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.reporting.Go(func() { s.ping(alive) })
	return s, nil
}

// configure sets how values print, how soon Postgres gives up on us, and that no limit of the role's ends a wait.
func (s *Session) configure(ctx context.Context) error {
	timeout := strconv.FormatInt(holderTimeout.Milliseconds(), 10)
	sql := "SET statement_timeout = 0; SET lock_timeout = 0; SET wal_sender_timeout = " + timeout +
		"; SET idle_session_timeout = " + timeout
	for _, setting := range display {
		sql += "; SET " + setting
	}
	_, err := query(ctx, s.conn, sql)
	return err
}

// lock takes the stream's advisory lock. It asks again and again rather than waiting in Postgres: a waiting query
// would hold a snapshot, and for as long as a standby waits, vacuum could remove nothing in the whole database.
func (s *Session) lock(ctx context.Context) error {
	key := "hashtext('" + s.db.slot + "')"
	for {
		rows, err := s.ask(ctx, "SELECT pg_try_advisory_lock("+key+")")
		if err != nil {
			return err
		}
		if len(rows) == 1 && isTrue(rows[0][0]) {
			return nil
		}
		rows, err = s.ask(ctx, `SELECT a.pid, a.application_name,
			coalesce(host(a.client_addr), 'a local socket') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND (l.classid::bigint << 32 | l.objid::bigint) = `+key)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			s.waiting(fmt.Sprintf("another process has replication stream %s: server process %s, application %q, "+
				"from %s", s.db.slot, rows[0][0], rows[0][1], rows[0][2]))
		}
		if err := pause(ctx, lockInterval); err != nil {
			return err
		}
	}
}

// inspect decides whether the slot's past can be built on, creates the publication and drops a slot that is no use.
func (s *Session) inspect(ctx context.Context) error {
	slot, err := s.slotState(ctx)
	if err != nil {
		return err
	}
	published, err := s.findPublication(ctx)
	if err != nil {
		return err
	}
	if slot.exists && (slot.lost || !published) {
		// Before the publication is made: a crash in between must not leave a slot and a publication that seem to
		// belong together, though changes passed while there was no publication.
		if err := s.dropSlot(ctx); err != nil {
			return err
		}
		slot = slotState{}
	}
	if !published {
		if err := s.createPublication(ctx); err != nil {
			return err
		}
	}
	s.SlotNew, s.Confirmed = !slot.exists, slot.confirmed
	s.confirmed.Store(uint64(slot.confirmed))

	rows, err := s.ask(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())")
	if err != nil {
		return fmt.Errorf("read the transaction counter: %w", err)
	}
	if len(rows) != 1 {
		return fmt.Errorf("read the transaction counter: %d rows", len(rows))
	}
	s.ReferenceXID, err = strconv.ParseUint(string(rows[0][0]), 10, 64)
	return err
}

// ask runs one query on the replication connection and returns its rows.
func (s *Session) ask(ctx context.Context, sql string) ([][][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	results, err := query(ctx, s.conn, sql)
	return lastRows(results), err
}

// findPublication reports whether the publication exists; it is an error if it does not do what we need.
func (s *Session) findPublication(ctx context.Context) (bool, error) {
	// Columns that only newer servers have are reached through JSON.
	rows, err := s.ask(ctx, `SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate,
		to_jsonb(p)->>'pubgencols' = 's' FROM pg_publication p WHERE pubname = '`+s.db.publication+`'`)
	if err != nil {
		return false, fmt.Errorf("look at the publication: %w", err)
	}
	if len(rows) == 0 {
		return false, nil
	}
	if !isTrue(rows[0][0]) {
		return false, &CheckError{Check: "publication", Text: fmt.Sprintf("Publication %q does not publish all required "+
			"operations: INSERT, UPDATE, DELETE, TRUNCATE", s.db.publication)}
	}
	s.PublishesGenerated = isTrue(rows[0][1])
	return true, nil
}

func (s *Session) createPublication(ctx context.Context) error {
	name := shape.QuoteIdent(s.db.publication)
	if s.db.manual {
		return &CheckError{Check: "publication", Text: fmt.Sprintf(
			"Publication %q not found in the database: run CREATE PUBLICATION %s, and add the tables to it",
			s.db.publication, name)}
	}
	sql := "CREATE PUBLICATION " + name
	if s.db.version >= 180000 {
		sql += " WITH (publish_generated_columns = stored)"
	}
	_, err := query(ctx, s.conn, sql)
	switch code(err) {
	case "":
		if err != nil {
			return fmt.Errorf("create the publication: %w", err)
		}
		s.PublishesGenerated = s.db.version >= 180000
		return nil
	case codeNoPrivilege:
		return &CheckError{Check: "publication", Err: err, Text: fmt.Sprintf(
			"role %q may not create publication %q: run GRANT CREATE ON DATABASE %s TO %s, or CREATE PUBLICATION %s "+
				"yourself", s.db.direct.User, s.db.publication, shape.QuoteIdent(s.Database),
			shape.QuoteIdent(s.db.direct.User), name)}
	}
	return fmt.Errorf("create the publication: %w", err)
}

// ping keeps the session from being taken for dead until the stream runs, which then speaks for itself. When it fails
// the connection is gone, and Start will say so.
func (s *Session) ping(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Not under ctx: to cancel a query would cost the connection.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), holderTimeout)
		_, err := query(limited, s.conn, "SELECT 1")
		cancel()
		if err != nil {
			return
		}
	}
}

// Close ends the stream, tells the server what was confirmed last, and gives the lock back. It waits for the session's
// goroutines, within a bound of its own for a server that does not answer.
func (s *Session) Close(ctx context.Context) error {
	s.stop()
	s.reporting.Wait()
	_ = s.conn.Conn().SetReadDeadline(time.Unix(1, 0)) // wakes read
	s.reading.Wait()
	// A socket closed with bytes unread resets the connection, and the server then loses the last confirmation.
	_ = s.conn.Conn().SetDeadline(time.Now().Add(closeTimeout))
	s.conn.Frontend().Send(&pgproto3.Terminate{})
	if s.conn.Frontend().Flush() == nil {
		_, _ = io.Copy(io.Discard, s.conn.Conn())
	}
	hangUp(ctx, s.conn)
	return nil
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
