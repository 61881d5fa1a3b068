package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shapeline/shapeline/internal/shape"
)

// versionMin is the oldest server that we work with, as server_version_num.
const versionMin = 140000

// CheckError says that the database, as it is set up, cannot be replicated from.
type CheckError struct {
	Check     string // which check: configuration, connection, role, version, primary, wal_level, publication or slot
	Text      string // one sentence for an operator: what is wrong and what to do
	Transient bool   // it may pass without anyone doing anything
	Err       error  // the cause, if there is one
}

// Error is the sentence.
func (e *CheckError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *CheckError) Unwrap() error { return e.Err }

// Permanent reports whether err will not pass by trying again: an operator has to change something first. All other
// errors of this package are worth a reconnect.
func Permanent(err error) bool {
	var e *CheckError
	return errors.As(err, &e) && !e.Transient
}

// check connects once, directly, and asks for all that replication needs. It returns the server's version.
func check(ctx context.Context, c *pgconn.Config) (version int, err error) {
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return 0, explain(c, err)
	}
	defer hangUp(ctx, conn)
	// rds_replication is how Amazon grants what is a role attribute elsewhere.
	results, err := query(ctx, conn, `SELECT current_setting('server_version_num'), current_setting('wal_level'),
		pg_is_in_recovery(), current_user, rolsuper OR rolreplication OR EXISTS (SELECT FROM pg_roles g
			WHERE g.rolname = 'rds_replication' AND pg_has_role(g.oid, 'MEMBER'))
		FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return 0, fmt.Errorf("check the server's settings: %w", err)
	}
	rows := lastRows(results)
	if len(rows) != 1 {
		return 0, fmt.Errorf("check the server's settings: %d rows", len(rows))
	}
	r := rows[0]
	return number(r[0]), judge(facts{version: number(r[0]), walLevel: string(r[1]), standby: isTrue(r[2]),
		role: string(r[3]), replication: isTrue(r[4])})
}

// facts is what judge decides on.
type facts struct {
	version     int // server_version_num
	walLevel    string
	standby     bool
	role        string
	replication bool
}

func judge(f facts) error {
	switch {
	case f.version < versionMin:
		return &CheckError{Check: "version", Text: fmt.Sprintf(
			"Postgres %d is too old: version 14 or newer is needed, upgrade the server", f.version/10000)}
	case f.standby:
		return &CheckError{Check: "primary",
			Text: "this Postgres is a read replica: let the database URL lead to the primary"}
	case f.walLevel != "logical":
		return &CheckError{Check: "wal_level", Text: fmt.Sprintf("wal_level is %q, but replication needs \"logical\": "+
			"run ALTER SYSTEM SET wal_level = 'logical' and restart Postgres", f.walLevel)}
	case !f.replication:
		return noReplication(f.role, nil)
	}
	return nil
}

func noReplication(role string, cause error) error {
	return &CheckError{Check: "role", Err: cause, Text: fmt.Sprintf(
		"role %q may not replicate: run ALTER ROLE %s REPLICATION as a superuser (on Amazon RDS: GRANT "+
			"rds_replication TO %[2]s)", role, shape.QuoteIdent(role))}
}

// SQLSTATEs that we tell apart.
const (
	codeProtocolViolation  = "08P01"
	codeNoObject           = "42704"
	codeInvalidParameter   = "22023"
	codeInvalidAuth        = "28000"
	codeInvalidPassword    = "28P01"
	codeNoDatabase         = "3D000"
	codeDeadlock           = "40P01"
	codeNoPrivilege        = "42501"
	codeNoColumn           = "42703"
	codeNoFunction         = "42883"
	codeNoTable            = "42P01"
	codeDuplicate          = "42710"
	codeTooManyConnections = "53300"
	codeLimitExceeded      = "53400"
	codeWrongState         = "55000"
	codeInUse              = "55006"
	codeLockTimeout        = "55P03"
	codeCanceled           = "57014"
)

// code is the SQLSTATE of the server's error within err, or "".
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// explain turns the error of a connection attempt into a *CheckError where an operator must act, and else says which
// server could not be reached.
func explain(c *pgconn.Config, err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return fmt.Errorf("connect to Postgres at %s:%d: %w", c.Host, c.Port, err)
	}
	walsender := c.RuntimeParams["replication"] != ""
	is := func(check, text string, args ...any) error {
		return &CheckError{Check: check, Text: fmt.Sprintf(text, args...), Err: err}
	}
	switch {
	case e.Code == codeInvalidPassword:
		return is("connection", "Postgres refused the password of role %q: correct the database URL", c.User)
	case e.Code == codeInvalidAuth:
		return is("connection", "Postgres refused role %q (%s): correct the database URL or the server's pg_hba.conf",
			c.User, e.Message)
	case e.Code == codeNoDatabase:
		return is("connection", "there is no database %q: create it or correct the database URL", c.Database)
	case e.Code == codeNoPrivilege && walsender:
		return noReplication(c.User, err)
	case e.Code == codeNoPrivilege:
		return is("connection", "role %q may not connect (%s): run GRANT CONNECT ON DATABASE %s TO %s", c.User,
			e.Message, shape.QuoteIdent(c.Database), shape.QuoteIdent(c.User))
	case e.Code == codeProtocolViolation && walsender:
		return is("connection", "the database URL leads to a connection pooler, which cannot replicate (%s): let it "+
			"lead to the server itself, and the pooled URL to the pooler", e.Message)
	case e.Code == codeTooManyConnections:
		setting := "max_connections"
		if walsender {
			setting = "max_wal_senders or max_connections"
		}
		return &CheckError{Check: "connection", Transient: true, Err: err, Text: fmt.Sprintf(
			"Postgres has no connection left (%s): close some or raise %s", e.Message, setting)}
	}
	return fmt.Errorf("connect to Postgres at %s:%d: %w", c.Host, c.Port, err)
}
