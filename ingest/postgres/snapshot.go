package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	poolWaitMax     = 10 * time.Second // for a connection of the pool
	snapshotLockMax = 5 * time.Second  // for a table that somebody alters
	firstRowMax     = 30 * time.Second // protocol reference, 8.6
	idleMax         = time.Minute      // between Snapshot and Rows; Postgres ends the transaction of a stopped process
)

// Texts of failures for clients (protocol reference, 8.6).
const (
	textLockTimeout = "Snapshot timed out while waiting for a table lock"
	textUnavailable = "Database connection not available"
	textSlowQuery   = "Snapshot query took too long to return data (cancelled after %dms). Please ensure snapshot " +
		"queries are using an index to avoid taking up all database connections."
	textChanged    = "Schema changed while creating snapshot"
	textDenied     = "Unable to create initial snapshot: "
	textUnexpected = "Unexpected error while creating snapshot: "
)

// SnapshotError says why there is no snapshot. Its text is for clients, who may try again: something may pass, or an
// operator must act.
type SnapshotError struct {
	TableChanged bool // the table is no longer what was described
	Unexpected   bool // nothing that is known to happen
	Text         string
	Err          error // the cause, if there is one
}

// Error is the text for clients.
func (e *SnapshotError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *SnapshotError) Unwrap() error { return e.Err }

// Query says which rows of which table.
type Query struct {
	Relation *pg.Relation // from Describe
	Columns  []int        // places in Relation.Columns; rows have their values in this order
	Where    string       // an SQL condition that has been checked, "" for all rows
	SkipRows bool         // only the moment is wanted
}

// Snapshot is one moment of one table, in a transaction that holds a connection of the pool until Close.
type Snapshot struct {
	query Query
	conn  *pgxpool.Conn
	taken pg.Snapshot
	at    pg.LSN
}

// Snapshot opens a snapshot: on return its moment is settled and every later commit is after it. The table cannot be
// altered or truncated until the rows are read, and is what q says. It returns a *SnapshotError.
func (db *DB) Snapshot(ctx context.Context, q Query) (_ *Snapshot, err error) {
	waiting, done := context.WithTimeout(ctx, poolWaitMax)
	conn, err := db.pool.Acquire(waiting)
	done()
	if err != nil {
		return nil, snapshotError(ctx, err)
	}
	s := &Snapshot{query: q, conn: conn}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	// The lock comes before the moment: a table that was rewritten or truncated in between would look empty, because
	// such changes respect no snapshot. LOCK itself takes none.
	sql := []string{
		"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"SET LOCAL statement_timeout = 0", // a role's limit is not meant for reading a whole table
		fmt.Sprintf("SET LOCAL lock_timeout = %d", snapshotLockMax.Milliseconds()),
		fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", idleMax.Milliseconds()),
		"SET LOCAL row_security = off", // an error rather than rows left out, which the stream would then bring
	}
	for _, setting := range display {
		sql = append(sql, "SET LOCAL "+setting)
	}
	sql = append(sql, "LOCK TABLE "+only(q.Relation)+" IN ACCESS SHARE MODE",
		"SELECT pg_current_snapshot(), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')", describeByOID(q.Relation.OID))
	results, err := query(ctx, conn.Conn().PgConn(), strings.Join(sql, ";\n"))
	if err != nil {
		return nil, snapshotError(ctx, err)
	}
	if err := s.settle(results); err != nil {
		return nil, snapshotError(ctx, err)
	}
	if q.SkipRows {
		if _, err := query(ctx, conn.Conn().PgConn(), "COMMIT"); err != nil {
			return nil, snapshotError(ctx, err)
		}
	}
	return s, nil
}

// settle reads the moment, and compares the table with what it was described as.
func (s *Snapshot) settle(results []*pgconn.Result) error {
	unexpected := func(err error) error {
		return &SnapshotError{Unexpected: true, Text: textUnexpected + err.Error(), Err: err}
	}
	if len(results) < 2 || len(results[len(results)-2].Rows) != 1 {
		return unexpected(fmt.Errorf("%d results", len(results)))
	}
	moment := results[len(results)-2].Rows[0]
	var err error
	if s.taken, err = pg.ParseSnapshot(string(moment[0])); err != nil {
		return unexpected(err)
	}
	at, err := strconv.ParseUint(string(moment[1]), 10, 64)
	if err != nil {
		return unexpected(err)
	}
	s.at = pg.LSN(at)
	now, err := described(lastRows(results))
	if err != nil {
		return err
	}
	if !sameTable(now, s.query.Relation) {
		return &SnapshotError{TableChanged: true, Text: textChanged}
	}
	return nil
}

// sameTable reports whether rows and keys of a and b are made alike.
func sameTable(a, b *pg.Relation) bool {
	if !a.SameRows(b) || a.Kind != b.Kind {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i].PK != b.Columns[i].PK {
			return false
		}
	}
	return true
}

// Taken returns the moment: which transactions the rows contain, and where the log ended just after.
func (s *Snapshot) Taken() (pg.Snapshot, pg.LSN) { return s.taken, s.at }

// Rows calls fn for each row, in no order, and ends the transaction. A row and its values are valid until fn returns.
// An error of fn ends the reading and is returned as it is; every other error is a *SnapshotError, or ctx's. It can be
// called once, and not with SkipRows.
func (s *Snapshot) Rows(ctx context.Context, fn func(row pg.Row) error) error {
	slow := fmt.Errorf("no row within %s", firstRowMax)
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &rowWriter{columns: len(s.query.Columns), fn: fn}
	w.first = time.AfterFunc(firstRowMax, func() { cancel(slow) })
	defer w.first.Stop()

	conn := s.conn.Conn().PgConn()
	_, err := conn.CopyTo(limited, w, s.query.copySQL())
	switch {
	case w.fnErr != nil:
		return w.fnErr
	case err != nil && errors.Is(context.Cause(limited), slow):
		return &SnapshotError{Text: fmt.Sprintf(textSlowQuery, firstRowMax.Milliseconds()), Err: slow}
	case err != nil:
		return snapshotError(ctx, err)
	}
	if _, err := query(ctx, conn, "COMMIT"); err != nil {
		return snapshotError(ctx, err)
	}
	return nil
}

// Close gives the connection back, or away if the snapshot did not come to its end.
func (s *Snapshot) Close() { s.conn.Release() }

// copySQL writes the COPY. Reading a table as such is a little cheaper than a query over it.
func (q *Query) copySQL() string {
	plain := q.Where == "" && q.Relation.Kind != "p" && len(q.Columns) > 0
	names := make([]string, len(q.Columns))
	for i, at := range q.Columns {
		c := &q.Relation.Columns[at]
		names[i] = shape.QuoteIdent(c.Name)
		plain = plain && !c.Generated // of which COPY table refuses to write any
	}
	columns := strings.Join(names, ", ")
	if plain {
		return "COPY " + quoted(q.Relation) + " (" + columns + ") TO STDOUT"
	}
	sql := "COPY (SELECT " + columns + " FROM " + only(q.Relation)
	if q.Where != "" {
		sql += " WHERE (" + q.Where + "\n)"
	}
	return sql + ") TO STDOUT"
}

// rowWriter receives a COPY: each Write is one row, as the protocol promises.
type rowWriter struct {
	columns int
	fn      func(row pg.Row) error
	first   *time.Timer // ends the query if no row comes; nil once one has come
	decoder copyDecoder
	fnErr   error
}

// Write hands the row to fn.
func (w *rowWriter) Write(line []byte) (int, error) {
	if w.first != nil {
		w.first.Stop()
		w.first = nil
	}
	row, err := w.decoder.decode(line, w.columns)
	if err != nil {
		return 0, err
	}
	if err := w.fn(row); err != nil {
		w.fnErr = err
		return 0, err
	}
	return len(line), nil
}

// snapshotError words a failure for clients. An error of the caller's own ctx is not one.
func snapshotError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var known *SnapshotError
	if errors.As(err, &known) {
		return known
	}
	e := &SnapshotError{Err: err}
	var answer *pgconn.PgError
	var format *CopyFormatError
	switch {
	case errors.Is(err, ErrNoTable):
		e.TableChanged, e.Text = true, textChanged
	case errors.As(err, &format):
		e.Unexpected, e.Text = true, textUnexpected+format.Error()
	case !errors.As(err, &answer):
		e.Text = textUnavailable
	case answer.Code == codeNoTable || answer.Code == codeNoColumn || answer.Code == codeNoFunction:
		e.TableChanged, e.Text = true, textChanged
	case answer.Code == codeLockTimeout:
		e.Text = textLockTimeout
	case answer.Code == codeNoPrivilege:
		e.Text = textDenied + answer.Message
	case strings.HasPrefix(answer.Code, "08"), strings.HasPrefix(answer.Code, "53"),
		strings.HasPrefix(answer.Code, "57"):
		e.Text = textUnavailable // connection, resources, an operator's intervention
	default:
		e.Unexpected, e.Text = true, textUnexpected+answer.Message
	}
	return e
}
