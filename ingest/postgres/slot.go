package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// slotReport is how often the creation of a slot, which waits for transactions to end, says what it waits for.
const slotReport = 2 * time.Second

// slotState is what the catalogue says of the stream's slot.
type slotState struct {
	exists    bool
	lost      bool // WAL that it needs is gone
	confirmed pg.LSN
	holder    string // the server process that uses it, "" for none
}

func (s *Session) slotState(ctx context.Context) (slotState, error) {
	// Columns that only newer servers have are reached through JSON. Positions are asked for as numbers.
	rows, err := s.ask(ctx, `SELECT plugin, database, active_pid,
		pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), wal_status = 'lost' OR (to_jsonb(s)->>'invalidation_reason') IS NOT NULL
		FROM pg_replication_slots s WHERE slot_name = '`+s.db.slot+`'`)
	if err != nil {
		return slotState{}, fmt.Errorf("look at the slot: %w", err)
	}
	if len(rows) == 0 {
		return slotState{}, nil
	}
	r := rows[0]
	if plugin, database := string(r[0]), string(r[1]); plugin != "pgoutput" || database != s.Database {
		return slotState{}, &CheckError{Check: "slot", Text: fmt.Sprintf(
			"replication slot %q belongs to something else (plug-in %q, database %q): drop it or choose another "+
				"replication stream id", s.db.slot, plugin, database)}
	}
	state := slotState{exists: true, lost: isTrue(r[4]), holder: string(r[2])}
	if r[3] != nil {
		confirmed, err := strconv.ParseUint(string(r[3]), 10, 64)
		if err != nil {
			return slotState{}, fmt.Errorf("look at the slot: %w", err)
		}
		state.confirmed = pg.LSN(confirmed)
	}
	return state, nil
}

// slotFree waits until nobody uses the slot. Whoever does has not asked for the stream's lock, or is a walsender that
// has given it back and is about to end.
func (s *Session) slotFree(ctx context.Context) error {
	for since := time.Now(); ; {
		state, err := s.slotState(ctx)
		if err != nil || state.holder == "" {
			return err
		}
		text := fmt.Sprintf("replication slot %q is in use by server process %s, which does not hold the stream's "+
			"lock: end it (SELECT pg_terminate_backend(%[2]s)) or choose another replication stream id", s.db.slot,
			state.holder)
		if time.Since(since) > slotBusyMax {
			return &CheckError{Check: "slot", Text: text, Transient: true}
		}
		s.waiting(text)
		if err := pause(ctx, slotInterval); err != nil {
			return err
		}
	}
}

func (s *Session) dropSlot(ctx context.Context) error {
	if err := s.slotFree(ctx); err != nil {
		return err
	}
	err := pglogrepl.DropReplicationSlot(ctx, s.conn, shape.QuoteIdent(s.db.slot),
		pglogrepl.DropReplicationSlotOptions{})
	if err != nil && code(err) != codeNoObject {
		return fmt.Errorf("drop slot %s: %w", s.db.slot, err)
	}
	return nil
}

// createSlot makes the slot and learns its position. Postgres waits for every transaction that runs to end, however
// long that takes; meanwhile the wait is explained.
func (s *Session) createSlot(ctx context.Context) error {
	explaining, done := context.WithCancel(ctx)
	s.reporting.Go(func() { s.explainWait(explaining) })
	_, err := pglogrepl.CreateReplicationSlot(ctx, s.conn, shape.QuoteIdent(s.db.slot), "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"})
	done()
	s.reporting.Wait()
	switch code(err) {
	case codeDuplicate: // by somebody who does not take the lock; its position is as good
	case codeLimitExceeded:
		return &CheckError{Check: "slot", Err: err, Text: "Postgres has no replication slot left: drop one " +
			"that nobody uses (see pg_replication_slots) or raise max_replication_slots and restart it"}
	default:
		if err != nil {
			return fmt.Errorf("create slot %s: %w", s.db.slot, err)
		}
	}
	state, err := s.slotState(ctx)
	if err != nil {
		return err
	}
	if !state.exists || state.confirmed.IsZero() {
		return fmt.Errorf("create slot %s: it has no position", s.db.slot)
	}
	s.Confirmed = state.confirmed
	s.confirmed.Store(uint64(state.confirmed))
	return nil
}

// explainWait says which transaction is the oldest that the creation of a slot may be waiting for, and asks Postgres
// to log the state that it waits for, which on an idle server would take until the next checkpoint. What fails here
// costs only the explanation.
func (s *Session) explainWait(ctx context.Context) {
	for pause(ctx, slotReport) == nil {
		conn, err := s.db.pool.Acquire(ctx)
		if err != nil {
			continue
		}
		s.explainOnce(ctx, conn.Conn().PgConn())
		conn.Release()
	}
}

func (s *Session) explainOnce(ctx context.Context, conn *pgconn.PgConn) {
	rows, err := queryParams(ctx, conn, `SELECT pid, date_trunc('second', xact_start) FROM pg_stat_activity
		WHERE backend_xid IS NOT NULL ORDER BY xact_start LIMIT 1`)
	if err == nil && len(rows) == 1 {
		s.waiting(fmt.Sprintf("creating replication slot %q waits for transactions that were open before it to end; "+
			"the oldest is of server process %s, since %s", s.db.slot, rows[0][0], rows[0][1]))
	}
	if s.db.version >= 160000 { // needs a privilege that we may not have, and only hurries things
		_, _ = queryParams(ctx, conn, "SELECT pg_log_standby_snapshot()")
	}
}
