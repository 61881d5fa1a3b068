package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	// Everybody who uses the table queues up behind us while we wait for its lock, so we do not wait long.
	publishLockMax      = 3 * time.Second
	publishStatementMax = 5 * time.Second
	publishTriesMax     = 3 // after a deadlock, or when somebody else was quicker
)

// TableError says that a table cannot be replicated as things stand. Its text is for clients (protocol reference,
// 14.4); it may be worth trying again.
type TableError struct {
	Table string // schema.name
	Text  string
	Err   error // the cause, if there is one
}

// Error is the text for clients.
func (e *TableError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *TableError) Unwrap() error { return e.Err }

// Publish makes sure that all changes of the table reach the stream, old rows included, from its return on: the table
// is in the publication, and its replica identity and that of its partitions is FULL. All of it is committed on return.
// A snapshot taken afterwards and the stream have no gap between them: transactions that had already written to the
// table when it was added, and whose first changes the stream therefore lacks, have ended before. It returns a
// *TableError. It changes nothing if nothing needs to be changed, and takes no lock then.
func (db *DB) Publish(ctx context.Context, rel *pg.Relation) error {
	select {
	case db.publishing <- struct{}{}:
		defer func() { <-db.publishing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("publish table %s: %w", tableName(rel), err)
	}
	defer conn.Release()
	for range publishTriesMax {
		err = db.publish(ctx, conn.Conn().PgConn(), rel)
		if c := code(err); c != codeDeadlock && c != codeDuplicate {
			break
		}
	}
	return db.tableError(rel, err)
}

// publish looks at what there is, and does what is missing in one transaction.
func (db *DB) publish(ctx context.Context, conn *pgconn.PgConn, rel *pg.Relation) error {
	state, err := db.membership(ctx, conn, rel)
	if err != nil {
		return err
	}
	tables, err := identities(ctx, conn, rel)
	if err != nil {
		return err
	}
	owner := state.owner && !db.manual
	if !state.member && !owner {
		return db.missing(rel)
	}
	var alter []string // each waits for whoever uses the table, so that no writer is left in the middle
	for _, t := range tables {
		if isFull([]byte(t.ReplicaIdentity)) {
			continue
		}
		if !owner {
			return &TableError{Table: tableName(t), Text: fmt.Sprintf(
				"Database table %q does not have its replica identity set to FULL", tableName(t))}
		}
		alter = append(alter, "ALTER TABLE "+quoted(t)+" REPLICA IDENTITY FULL")
	}
	var steps []string
	if !state.member {
		mode := "SHARE ROW EXCLUSIVE" // waits for those who have written to the table, and keeps others from it
		if len(alter) > 0 {
			mode = "ACCESS EXCLUSIVE" // at once, rather than by a second step that could deadlock
		}
		// ADD TABLE goes first because it is the one that says who does not own the table. Without ONLY, tables that
		// inherit from an ordinary one would come too.
		steps = []string{"ALTER PUBLICATION " + shape.QuoteIdent(db.publication) + " ADD TABLE " + only(rel),
			"LOCK TABLE " + only(rel) + " IN " + mode + " MODE"}
	}
	if steps = append(steps, alter...); len(steps) == 0 {
		return nil
	}
	return transact(ctx, conn, steps)
}

// transact runs the steps in one transaction that does not wait for long.
func transact(ctx context.Context, conn *pgconn.PgConn, steps []string) error {
	limits := fmt.Sprintf("SET LOCAL lock_timeout = %d; SET LOCAL statement_timeout = %d",
		publishLockMax.Milliseconds(), publishStatementMax.Milliseconds())
	_, err := query(ctx, conn, "BEGIN; "+limits+"; "+strings.Join(steps, "; ")+"; COMMIT")
	if err != nil && !conn.IsClosed() {
		if _, undo := query(ctx, conn, "ROLLBACK"); undo != nil {
			return errors.Join(err, undo)
		}
	}
	return err
}

// membership is how a table stands to the publication.
type membership struct {
	owner  bool // we may change the publication
	member bool // the table, or one that it is a partition of, is in it
}

func (db *DB) membership(ctx context.Context, conn *pgconn.PgConn, rel *pg.Relation) (membership, error) {
	bySchema := "false"
	if db.version >= 150000 {
		bySchema = `EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
			WHERE s.pnpubid = p.oid
			AND (c.oid = $2::oid OR c.oid IN (SELECT relid FROM pg_partition_ancestors($2::oid))))`
	}
	// A row filter or a column list, which Postgres 14 does not have, are reached through JSON.
	rows, err := queryParams(ctx, conn, `SELECT pg_has_role(p.pubowner, 'USAGE'),
		p.puballtables OR count(r.oid) > 0 OR `+bySchema+`,
		coalesce(bool_or(to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL), false)
		FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
			AND (r.prrelid = $2::oid OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors($2::oid)))
		WHERE p.pubname = $1 GROUP BY p.oid, p.pubowner, p.puballtables`, db.publication, oidText(rel.OID))
	if err != nil {
		return membership{}, err
	}
	if len(rows) == 0 {
		return membership{}, &TableError{Table: tableName(rel), Text: fmt.Sprintf(
			"Publication %q not found in the database", db.publication)}
	}
	if isTrue(rows[0][2]) {
		return membership{}, &TableError{Table: tableName(rel), Text: fmt.Sprintf("Database table %q is published in "+
			"part only: remove its row filter and column list from the publication %q", tableName(rel), db.publication)}
	}
	return membership{owner: isTrue(rows[0][0]), member: isTrue(rows[0][1])}, nil
}

// identities returns the table and its partitions in the order of their names, with their replica identities.
func identities(ctx context.Context, conn *pgconn.PgConn, rel *pg.Relation) ([]*pg.Relation, error) {
	rows, err := queryParams(ctx, conn, `SELECT c.oid, n.nspname, c.relname, c.relreplident
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND (c.oid = $1::oid OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid)))
		ORDER BY n.nspname, c.relname`, oidText(rel.OID))
	if err != nil {
		return nil, err
	}
	var tables []*pg.Relation
	found := false
	for _, r := range rows {
		oid, err := parseOID(r[0])
		if err != nil {
			return nil, err
		}
		t := &pg.Relation{OID: oid, Schema: string(r[1]), Name: string(r[2]), ReplicaIdentity: string(r[3])}
		found = found || t.OID == rel.OID && t.Schema == rel.Schema && t.Name == rel.Name
		tables = append(tables, t)
	}
	if !found {
		return nil, gone(rel, nil)
	}
	return tables, nil
}

func gone(rel *pg.Relation, cause error) error {
	return &TableError{Table: tableName(rel), Err: cause, Text: fmt.Sprintf(
		"Database table %q has been dropped or renamed", tableName(rel))}
}

func (db *DB) missing(rel *pg.Relation) error {
	why := "Electric lacks privileges to add it"
	if db.manual {
		why = "the ELECTRIC_MANUAL_TABLE_PUBLISHING setting prevents Electric from adding it"
	}
	return &TableError{Table: tableName(rel), Text: fmt.Sprintf(
		"Database table %q is missing from the publication %q and %s", tableName(rel), db.publication, why)}
}

// tableError words what Postgres answered for clients. Errors without an answer are wrapped only.
func (db *DB) tableError(rel *pg.Relation, err error) error {
	var e *pgconn.PgError
	var known *TableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case !errors.As(err, &e):
		return fmt.Errorf("publish table %s: %w", tableName(rel), err)
	}
	text := "Unable to create initial snapshot: " + e.Message
	switch e.Code {
	case codeNoTable:
		return gone(rel, err)
	case codeLockTimeout, codeCanceled:
		text = textLockTimeout
	case codeNoObject:
		text = fmt.Sprintf("Publication %q not found in the database", db.publication)
	}
	return &TableError{Table: tableName(rel), Text: text, Err: err}
}

// only writes a table for SQL such that an ordinary one stands for itself alone, a partitioned one for its partitions.
func only(rel *pg.Relation) string {
	if rel.Kind == "p" {
		return quoted(rel)
	}
	return "ONLY " + quoted(rel)
}

func oidText(oid pg.OID) string { return strconv.FormatUint(uint64(oid), 10) }
