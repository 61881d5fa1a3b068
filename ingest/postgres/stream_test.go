package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/ingest/pgoutput"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/localpg"
	"github.com/shapeline/shapeline/internal/pg"
)

// types are columns, each with a value that prints differently under other settings or in other formats.
var types = []struct{ sql, value string }{
	{"bigint", "-9223372036854775808"}, {"boolean", "true"}, {"boolean", "NULL"}, {"real", "0.1"},
	{"double precision", "0.30000000000000004"}, {"double precision", "'-Infinity'"}, {"real", "'NaN'"},
	{"numeric", "12345678901234567890.123456789000"}, {"numeric(6,2)", "1.5"}, {"text", "''"},
	{"text", `E'tab\t newline\n return\r back\\slash \\N \b\f\v "quote" é😀'`}, {"varchar(5)", "'ab'"},
	{"char(5)", "'ab'"}, {"\"char\"", "'x'"}, {"bytea", `'\x0001fffe5c'`}, {"date", "'2026-03-04'"},
	{"date", "'0044-03-15 BC'"},
	{"time", "'01:02:03.004'"}, {"timetz", "'01:02:03+02'"}, {"timestamp", "'2026-03-04 05:06:07.891'"},
	{"timestamptz", "'2026-03-04 05:06:07+03'"}, {"timestamptz", "'infinity'"}, {"interval", "'1 year 2 days 03:04:05.6'"},
	{"interval day to second(2)", "'-1 day 02:03:04.567'"}, {"uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"},
	{"json", `'{"a":   1,  "a": "\\u00e9\\n"}'`}, {"jsonb", `'{"b":1, "a": [1, null]}'`}, {"inet", "'10.0.0.1/32'"},
	{"cidr", "'10.0.0.0/8'"}, {"macaddr", "'08:00:2b:01:02:03'"}, {"bit(4)", "'1010'"}, {"varbit", "'10'"},
	{"money", "'1234.5'"}, {"point", "'(1.5,-2)'"}, {"int4range", "'[1,5]'"}, {"tsvector", "'a fat cat'"},
	{"xml", "'<a>b</a>'"}, {"int[]", "'{{1,2},{3,NULL}}'"}, {"int[]", "'[0:1]={1,2}'"},
	{"text[]", `ARRAY['a b', 'NULL', NULL, '', E'q"\\\\\t']`}, {"boolean[]", "'{t,f}'"}, {"mood", "'happy'"},
	{"mood[]", "'{sad,happy}'"}, {"complex", "'(1.1,2.2)'"}, {"complex[]", `'{"(1.1,2.2)","(3.3,)"}'`}, {"posint", "7"},
	{"posint[]", "'{7,8}'"}, {"oid", "4294967295"}, {"regclass", "'pg_class'"}, {"pg_lsn", "'16/B374D848'"},
	{"int2vector", "'1 2 3'"}, {"float8[]", "'{1.2,-3.2,Infinity,NaN}'"}, {"bytea[]", `ARRAY['\x00ff'::bytea]`},
	{"timestamptz[]", "'{2026-03-04 05:06:07+03}'"}, {"text", "repeat('x', 10000)"},
}

// typesTable makes a table of all the types and returns the statement that inserts row id.
func typesTable(t testing.TB, c postgres.Config) func(id int) string {
	columns, values := "id int PRIMARY KEY, n int", ""
	for i, typ := range types {
		columns += fmt.Sprintf(", c%d %s", i, typ.sql)
		values += ", " + typ.value
	}
	do(t, c.URL, "CREATE TYPE mood AS ENUM ('sad', 'happy')", "CREATE TYPE complex AS (r float8, i float8)",
		"CREATE DOMAIN posint AS int CHECK (VALUE > 0)", "CREATE TABLE items ("+columns+")")
	last := len(types) - 1
	do(t, c.URL, fmt.Sprintf("ALTER TABLE items ALTER c%d SET STORAGE EXTERNAL", last))
	return func(id int) string { return fmt.Sprintf("INSERT INTO items VALUES (%d, 0%s)", id, values) }
}

func TestSnapshotEqualsStream(t *testing.T) {
	t.Parallel()
	c := config(t)
	insert := typesTable(t, c)
	db := open(t, c)
	s := start(t, db)
	if !s.SlotNew || s.Confirmed.IsZero() || s.ReferenceXID == 0 || s.SystemID == "" || s.Timeline != 1 ||
		s.Database != c.StreamID {
		t.Errorf("session %+v", s)
	}
	rel := publish(t, db, "items")
	do(t, c.URL, insert(1), insert(2), "UPDATE items SET n = 1 WHERE id = 1", "DELETE FROM items WHERE id = 2")

	var d pgoutput.Decoder
	inserted, _ := transaction(t, s, &d)
	second, _ := transaction(t, s, &d)
	updated, _ := transaction(t, s, &d)
	deleted, _ := transaction(t, s, &d)
	rows := snapshotRows(t, db, postgres.Query{Relation: rel, Columns: all(rel)})
	if len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, col := range rel.Columns {
		for name, got := range map[string]pg.Row{"insert": inserted[0].New, "old": updated[0].Old, "new": updated[0].New,
			"second": second[0].New, "deleted": deleted[0].Old} {
			if col.Name == "id" || col.Name == "n" {
				continue
			}
			if !reflect.DeepEqual(got[i], rows[0][i]) {
				t.Errorf("%s %s (%s): stream %q, snapshot %q", name, col.Name, col.TypeSQL, got[i], rows[0][i])
			}
		}
	}
	if got := len(updated[0].New[len(rel.Columns)-1]); got != 10000 {
		t.Errorf("TOAST value that the update did not touch has %d bytes", got)
	}
	if streamed := inserted[0].Relation; !rel.SameRows(streamed) || streamed.ReplicaIdentity != "f" {
		t.Errorf("catalogue and stream describe the table differently:\n%+v\n%+v", rel, streamed)
	}
}

func TestStreamGoesOnFromWhatWasConfirmed(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)")
	db := open(t, c)
	first := start(t, db)
	publish(t, db, "items")
	do(t, c.URL, "INSERT INTO items VALUES (1)", "INSERT INTO items VALUES (2)")
	var d pgoutput.Decoder
	_, end := transaction(t, first, &d)
	first.Confirm(end)
	first.Confirm(1) // goes back: ignored
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Receive(t.Context()); err == nil {
		for err == nil { // what had been read ahead
			_, err = first.Receive(t.Context())
		}
	}

	second := start(t, db)
	if second.SlotNew || second.Confirmed != end {
		t.Errorf("slot new %v, confirmed %s, want %s", second.SlotNew, second.Confirmed, end)
	}
	var again pgoutput.Decoder
	changes, end := transaction(t, second, &again)
	if got := string(changes[0].New[0]); got != "2" {
		t.Errorf("row %s comes first", got)
	}
	second.Confirm(end)
	conn := connect(t, c.URL)
	until(t, conn, fmt.Sprintf("SELECT confirmed_flush_lsn = '%s' FROM pg_replication_slots WHERE slot_name = '%s'",
		end, db.SlotName()))
}

// An idle stream tells how far the server is: without it, the slot would hold WAL of other databases for good.
func TestKeepalivesMoveOn(t *testing.T) {
	t.Parallel()
	c := config(t)
	db := open(t, c)
	s := start(t, db)
	conn := connect(t, c.URL)
	run(t, conn, "CREATE TABLE noise (id int)")
	run(t, conn, "INSERT INTO noise VALUES (1)")
	at := value(t, conn, "SELECT pg_current_wal_lsn()::text")
	target, err := pg.ParseLSN(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		e, err := s.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.Data == nil && e.WALEnd >= target {
			s.Confirm(e.WALEnd)
			break
		}
	}
	until(t, conn, fmt.Sprintf("SELECT confirmed_flush_lsn >= '%s' FROM pg_replication_slots WHERE slot_name = '%s'",
		at, db.SlotName()))
}

// Nobody receives for longer than Postgres waits for an answer, while more comes than the buffers hold.
func TestBackpressure(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY, pad text)")
	db := open(t, c)
	s := start(t, db)
	publish(t, db, "items")
	const rows = 60_000
	do(t, c.URL, fmt.Sprintf("INSERT INTO items SELECT i, repeat('x', 300) FROM generate_series(1, %d) i", rows))
	conn := connect(t, c.URL)
	until(t, conn, `SELECT reply_time > backend_start + interval '7 s' FROM pg_stat_replication r
		JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = '`+db.SlotName()+"'")
	var d pgoutput.Decoder
	changes, _ := transaction(t, s, &d)
	if len(changes) != rows {
		t.Fatalf("%d rows", len(changes))
	}
	for i := range changes {
		if got := string(changes[i].New[0]); got != fmt.Sprint(i+1) {
			t.Fatalf("row %d is %s", i+1, got)
		}
	}
}

func TestStreamEndsWithTheServer(t *testing.T) {
	t.Parallel()
	requireE2E(t)
	server, err := localpg.Start(t.Context(), localpg.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	c := postgres.Config{URL: server.URL()}
	db := open(t, c)
	s := start(t, db)
	server.Kill()
	for err == nil {
		_, err = s.Receive(t.Context())
	}
	if postgres.Permanent(err) {
		t.Errorf("permanent: %v", err)
	}
	if _, err := db.Acquire(t.Context(), quiet); err == nil || postgres.Permanent(err) {
		t.Errorf("acquire without a server: %v", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := acquire(t, db); again.SlotNew || again.SystemID != s.SystemID {
		t.Errorf("after the restart: %+v", again)
	}
}

func TestSlotThatLostItsLog(t *testing.T) {
	t.Parallel()
	requireE2E(t)
	server, err := localpg.Start(t.Context(), localpg.Options{Dir: t.TempDir(),
		Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "max_replication_slots": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	db := open(t, postgres.Config{URL: server.URL()})
	s := start(t, db)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server.URL())
	run(t, conn, "CREATE TABLE noise (id int)")
	for range 4 {
		run(t, conn, "INSERT INTO noise VALUES (1)")
		run(t, conn, "SELECT pg_switch_wal()")
		run(t, conn, "CHECKPOINT")
	}
	until(t, conn, "SELECT wal_status = 'lost' FROM pg_replication_slots")
	again := acquire(t, db)
	if !again.SlotNew {
		t.Error("a lost slot is built on")
	}
	run(t, conn, "SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
	var e *postgres.CheckError
	if err := again.Start(t.Context(), 0); !errors.As(err, &e) || !strings.Contains(e.Text, "max_replication_slots") {
		t.Errorf("no slot left: %v", err)
	}
}

// BenchmarkStream receives and decodes rows of the shape that the performance goals are stated in, in transactions of
// 100; compare with pg_recvlogical -f /dev/null.
func BenchmarkStream(b *testing.B) {
	c := config(b)
	const transactions, size = 1000, 100
	do(b, c.URL, `CREATE TABLE items (id bigint PRIMARY KEY, tenant_id int, status text, title text, price numeric,
		tags text[], updated_at timestamptz)`)
	db := open(b, c)
	s := start(b, db)
	publish(b, db, "items")
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	do(b, c.URL, fmt.Sprintf(`DO $$BEGIN FOR n IN 1..%d LOOP
		INSERT INTO items SELECT n * %d + i, i %% 1000, 'in_progress', 'The title of the item, as people write them, number '
			|| i, i * 1.25, '{alpha,beta,gamma}', now() FROM generate_series(1, %[2]d) i;
		COMMIT; END LOOP; END$$`, transactions, size))
	b.ReportAllocs()
	for b.Loop() {
		s := start(b, db)
		var d pgoutput.Decoder
		var m pgoutput.Message
		for rows := 0; rows < transactions*size; {
			e, err := s.Receive(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if e.Data == nil {
				continue
			}
			if err := d.Decode(e.Data, &m); err != nil {
				b.Fatal(err)
			}
			if m.Kind == pgoutput.Insert {
				rows++
			}
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(transactions*size)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
