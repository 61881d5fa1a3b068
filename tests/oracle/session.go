package oracle

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lockTimeout bounds how long a statement waits for another session's row, before it counts as refused.
const lockTimeout = "SET lock_timeout = '20ms'"

// Session is one writer's connection with the transaction that it is in. It is not for use by several goroutines.
type Session struct {
	conn  *pgx.Conn
	gen   *Generator
	txn   Transaction
	next  int // of the statements; -1 while no transaction is open
	depth int // savepoints open
	dead  bool
	log   []string
}

// NewSession makes conn the session that runs the transactions of gen. The caller closes conn.
func NewSession(ctx context.Context, conn *pgx.Conn, gen *Generator) (*Session, error) {
	if _, err := conn.Exec(ctx, lockTimeout); err != nil {
		return nil, fmt.Errorf("set up the session: %w", err)
	}
	return &Session{conn: conn, gen: gen, next: -1}, nil
}

// Commit describes a committed transaction. XID is zero if it wrote nothing.
type Commit struct {
	XID        uint32
	Statements []string // shortened, for reports
}

// Idle reports whether no transaction is open.
func (s *Session) Idle() bool { return s.next < 0 }

// Step runs the session's next statement: BEGIN, one of the transaction's, or its end. It returns the transaction if
// this was its COMMIT. An error means that the connection or the generator is broken: what the database refuses is
// part of the game.
func (s *Session) Step(ctx context.Context) (*Commit, error) {
	if s.next < 0 {
		s.txn, s.next, s.depth, s.dead, s.log = s.gen.Next(), 0, 0, false, nil
		return nil, s.exec(ctx, "BEGIN")
	}
	if s.next < len(s.txn.Statements) && !s.dead {
		sql := s.txn.Statements[s.next]
		s.next++
		return nil, s.statement(ctx, sql)
	}
	s.next = -1
	if s.txn.Rollback || s.dead {
		return nil, s.exec(ctx, "ROLLBACK")
	}
	var xid string
	err := s.conn.QueryRow(ctx, "SELECT coalesce(pg_current_xact_id_if_assigned()::text, '0')").Scan(&xid)
	if err != nil {
		return nil, fmt.Errorf("ask for the transaction's id: %w", err)
	}
	n, err := strconv.ParseUint(xid, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the transaction's id: %w", err)
	}
	if err := s.exec(ctx, "COMMIT"); err != nil {
		return nil, err
	}
	return &Commit{uint32(n), s.log}, nil
}

// Transaction runs one transaction from its beginning to its end.
func (s *Session) Transaction(ctx context.Context) (*Commit, error) {
	for {
		done, err := s.Step(ctx)
		if err != nil || s.Idle() {
			return done, err
		}
	}
}

// Pause holds the transaction that is open for some milliseconds.
func (s *Session) Pause(ctx context.Context, ms int) error {
	if s.Idle() || s.dead {
		return nil
	}
	return s.exec(ctx, fmt.Sprintf("SELECT pg_sleep(%d / 1000.0)", ms))
}

// statement runs sql. What the database refuses, a taken key or a locked row, undoes as much as a program would:
// back to the savepoint, or all of it.
func (s *Session) statement(ctx context.Context, sql string) error {
	err := s.exec(ctx, sql)
	var refused *pgconn.PgError
	switch {
	case err == nil && strings.HasPrefix(sql, "SAVEPOINT"):
		s.depth++
	case err == nil && strings.Contains(sql, "RELEASE"):
		s.depth--
	case errors.As(err, &refused) && refused.Code[:2] == "42":
		return err // the generator wrote something that is no SQL
	case errors.As(err, &refused) && s.depth > 0:
		return s.exec(ctx, "ROLLBACK TO SAVEPOINT s")
	case errors.As(err, &refused):
		s.dead = true
		return nil
	}
	return err
}

func (s *Session) exec(ctx context.Context, sql string) error {
	s.log = append(s.log, Short(sql))
	if _, err := s.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", Short(sql), err)
	}
	return nil
}
