// Package postgres is the one package that talks to Postgres: the checks at start, the catalogue, the publication,
// the replication slot and its stream, and the snapshots. It hands out package pg's values and the stream's raw
// messages; pgoutput decodes those, ingest makes shapes of them. It keeps no position: what is durable, and from
// where to go on, is told to it.
//
// The one idea: whatever must not happen twice hangs on one connection. The replication connection takes the stream's
// advisory lock before anything else, and Postgres ends that connection by itself a few seconds after its holder
// stops to answer; so a standby takes over without anyone deciding that the other is dead.
//
// Which privilege is for what: REPLICATION (or rds_replication) for the slot and the stream; CONNECT; SELECT on a
// table for LOCK IN ACCESS SHARE MODE and COPY; USAGE on its schema; CREATE on the database for CREATE PUBLICATION;
// ownership of publication and table for ALTER PUBLICATION ADD TABLE, LOCK IN SHARE ROW EXCLUSIVE MODE and ALTER
// TABLE REPLICA IDENTITY, which none needs who publishes by hand. BYPASSRLS or ownership where a table has policies.
package postgres

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	poolSizeDefault = 20 // ELECTRIC_DB_POOL_SIZE's default

	connectTimeout = 10 * time.Second // where the URL has no connect_timeout
	closeTimeout   = 2 * time.Second  // to say goodbye on a connection that may be dead

	// A peer that has vanished without a word is found by TCP in about keepAliveIdle + keepAliveCount intervals.
	keepAliveIdle     = 10 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
)

// Config says which database, as which stream. Open copies it.
type Config struct {
	URL              string // a direct connection, for replication
	PooledURL        string // for everything else, may lead to a transaction-mode pooler; "" means URL
	StreamID         string // a-z, 0-9 and _, at most 42 bytes; "" means "default"
	PoolSize         int    // connections for everything but replication; 0 means 20
	ManualPublishing bool   // only check what is published and never change it
}

// streamID bounds the names made from it, electric_publication_<id> being the longest, to the 63 bytes of a name.
var streamID = regexp.MustCompile(`^[a-z0-9_]{1,42}$`)

// DB is one database as the source of one replication stream. All methods may be called at the same time.
type DB struct {
	publication string
	slot        string
	manual      bool
	version     int // server_version_num

	direct     *pgconn.Config
	pool       *pgxpool.Pool
	publishing chan struct{} // holds one token: one Publish at a time
}

// Open checks that the database can be replicated from and opens the pool. It returns a *CheckError for what an
// operator has to put right; see Permanent.
func Open(ctx context.Context, c Config) (*DB, error) {
	if c.StreamID == "" {
		c.StreamID = "default"
	}
	if !streamID.MatchString(c.StreamID) {
		return nil, &CheckError{Check: "configuration", Text: fmt.Sprintf(
			"the replication stream id %q will not do: use at most 42 of a-z, 0-9 and _", c.StreamID)}
	}
	direct, err := pgconn.ParseConfig(c.URL)
	if err != nil {
		return nil, &CheckError{Check: "configuration", Text: "the database URL cannot be read: " + err.Error(),
			Err: err}
	}
	configure(direct)
	if c.PooledURL == "" {
		c.PooledURL = c.URL
	}
	pooled, err := pgxpool.ParseConfig(c.PooledURL)
	if err != nil {
		return nil, &CheckError{Check: "configuration", Text: "the pooled database URL cannot be read: " + err.Error(),
			Err: err}
	}
	configure(&pooled.ConnConfig.Config)
	pooled.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler may not know prepared statements
	pooled.MaxConns = poolSizeDefault
	if c.PoolSize > 0 {
		pooled.MaxConns = int32(min(c.PoolSize, 1<<15))
	}

	db := &DB{
		publication: "electric_publication_" + c.StreamID,
		slot:        "electric_slot_" + c.StreamID,
		manual:      c.ManualPublishing,
		direct:      direct,
		publishing:  make(chan struct{}, 1),
	}
	if db.version, err = check(ctx, direct); err != nil {
		return nil, err
	}
	if db.pool, err = pgxpool.NewWithConfig(ctx, pooled); err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	if err := db.pool.Ping(ctx); err != nil {
		db.pool.Close()
		return nil, explain(&pooled.ConnConfig.Config, err)
	}
	return db, nil
}

// Close closes the pool; it waits for snapshots that are under way. Sessions are closed by their owners.
func (db *DB) Close() { db.pool.Close() }

// ServerVersion is the server's server_version_num, for example 150008.
func (db *DB) ServerVersion() int { return db.version }

// SlotName is the name of the stream's replication slot.
func (db *DB) SlotName() string { return db.slot }

// configure sets what every connection of ours needs and no URL should have to say.
func configure(c *pgconn.Config) {
	c.RuntimeParams["client_encoding"] = "UTF8"
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "shapeline"
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	dialer := &net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
	c.DialFunc = dialer.DialContext
}

// display is how values are printed, on every connection whose values clients see (protocol reference, 6.1): rows of
// a snapshot and rows of the stream must be the same bytes. It is a list of statements for use after SET or SET LOCAL.
var display = []string{
	"bytea_output = 'hex'", "DateStyle = 'ISO, DMY'", "TimeZone = 'UTC'", "extra_float_digits = 1",
	"IntervalStyle = 'iso_8601'",
}

// query runs one or many statements by the simple protocol, which replication connections need and poolers like, and
// returns the result of each. Values are text; NULL is nil.
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([]*pgconn.Result, error) {
	return conn.Exec(ctx, sql).ReadAll()
}

// queryParams runs one statement with text parameters.
func queryParams(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([][][]byte, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	res := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	return res.Rows, res.Err
}

// lastRows is the rows of the last of many results.
func lastRows(results []*pgconn.Result) [][][]byte {
	if len(results) == 0 {
		return nil
	}
	return results[len(results)-1].Rows
}

// isTrue reads a boolean as Postgres prints it.
func isTrue(v []byte) bool { return string(v) == "t" }

// number reads an integer that Postgres printed; what is none, NULL among it, is zero.
func number(v []byte) int {
	n, err := strconv.Atoi(string(v))
	if err != nil {
		return 0
	}
	return n
}

// hangUp closes a connection in whatever state it is, and waits for it within bounds, also when ctx has ended.
func hangUp(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // it is going away in any case
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
		_ = conn.Conn().Close() // ends what pgconn still tries in the background
		<-conn.CleanupDone()
	}
}
