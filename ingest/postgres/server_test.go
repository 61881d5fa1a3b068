package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/ingest/pgoutput"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/localpg"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// shared is the server that all tests of the package use, each with a database and a stream of its own.
var shared struct {
	once   sync.Once
	server *localpg.Server
	err    error
	tests  atomic.Int32
}

// TestMain stops the shared server, and lets the test binary be the holder that is stopped by a signal.
func TestMain(m *testing.M) {
	if target := os.Getenv("POSTGRES_TEST_HOLDER"); target != "" {
		os.Exit(hold(target))
	}
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func requireE2E(t testing.TB) {
	t.Helper()
	if os.Getenv("SHAPELINE_TEST_E2E") != "1" {
		t.Skip("needs Postgres: make check runs it")
	}
}

// config returns the way to a fresh database with a fresh stream on the shared server.
func config(t testing.TB) postgres.Config {
	t.Helper()
	requireE2E(t)
	shared.once.Do(func() {
		shared.server, shared.err = localpg.Start(context.Background(), localpg.Options{})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	name := fmt.Sprintf("t%d", shared.tests.Add(1))
	do(t, shared.server.URL(), "CREATE DATABASE "+name)
	return postgres.Config{URL: at(t, shared.server.URL(), "", name), StreamID: name, PoolSize: 4}
}

// at changes role (with the password "secret") and database of a connection string; "" keeps what it has.
func at(t testing.TB, dsn, role, database string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		u.User = url.UserPassword(role, "secret")
	}
	if database != "" {
		u.Path = "/" + database
	}
	return u.String()
}

func open(t testing.TB, c postgres.Config) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// do runs statements one by one on a connection of their own.
func do(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	conn := connect(t, dsn)
	for _, sql := range statements {
		run(t, conn, sql)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// value asks for one text.
func value(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// until asks until the answer is true.
func until(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		var yes bool
		if err := conn.QueryRow(t.Context(), sql).Scan(&yes); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatalf("%s: %v", sql, err)
		}
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never true: %s", sql)
		}
		time.Sleep(10 * time.Millisecond) // a poll of another process; nothing depends on its length
	}
}

func quiet(string) {}

func acquire(t testing.TB, db *postgres.DB) *postgres.Session {
	t.Helper()
	s, err := db.Acquire(t.Context(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// start acquires the stream and starts it at the slot's own position.
func start(t testing.TB, db *postgres.DB) *postgres.Session {
	t.Helper()
	s := acquire(t, db)
	if err := s.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func describe(t testing.TB, db *postgres.DB, name string) *pg.Relation {
	t.Helper()
	rel, err := db.Describe(t.Context(), shape.Table{Schema: "public", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

func publish(t testing.TB, db *postgres.DB, name string) *pg.Relation {
	t.Helper()
	rel := describe(t, db, name)
	if err := db.Publish(t.Context(), rel); err != nil {
		t.Fatal(err)
	}
	return rel
}

// transaction reads the stream to the end of the next transaction that changes rows; the changes are copies.
func transaction(t testing.TB, s *postgres.Session, d *pgoutput.Decoder) (changes []pg.Change, end pg.LSN) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		e, err := s.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.Data == nil {
			continue
		}
		var m pgoutput.Message
		if err := d.Decode(e.Data, &m); err != nil {
			t.Fatal(err)
		}
		switch m.Kind {
		case pgoutput.Insert, pgoutput.Update, pgoutput.Delete:
			c := m.Change
			c.Old, c.New = c.Old.Clone(), c.New.Clone()
			changes = append(changes, c)
		case pgoutput.Commit:
			if len(changes) > 0 {
				return changes, m.Txn.End
			}
		}
	}
}

// snapshotRows reads copies of the rows of a snapshot.
func snapshotRows(t testing.TB, db *postgres.DB, q postgres.Query) []pg.Row {
	t.Helper()
	s, err := db.Snapshot(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var rows []pg.Row
	if err := s.Rows(t.Context(), func(r pg.Row) error {
		rows = append(rows, r.Clone())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

func all(rel *pg.Relation) []int {
	columns := make([]int, len(rel.Columns))
	for i := range columns {
		columns[i] = i
	}
	return columns
}
