package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/pg"
)

func TestSnapshotQueries(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY, v text, twice int GENERATED ALWAYS AS (id * 2) STORED)",
		"INSERT INTO items VALUES (1, 'a'), (2, NULL), (3, '')", "CREATE TABLE child () INHERITS (items)",
		"INSERT INTO child VALUES (4, 'inherited')",
		"CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		"CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10)", "INSERT INTO root VALUES (5)",
		"CREATE TABLE empty (id int)")
	db := open(t, c)
	for _, r := range []struct {
		table   string
		columns []int
		where   string
		want    string
	}{
		{"items", []int{0, 1}, "", "1,a 2,NULL 3,"},
		{"items", []int{1, 0}, "id > 1 -- the end", "NULL,2 ,3"},
		{"items", []int{0, 2}, "", "1,2 2,4 3,6"},
		{"child", []int{0, 1}, "", "4,inherited"},
		{"root", []int{0}, "", "5"},
		{"root", []int{0}, "id <> 5", ""},
		{"low", []int{0}, "true", "5"},
		{"empty", []int{0}, "", ""},
	} {
		rows := snapshotRows(t, db, postgres.Query{Relation: describe(t, db, r.table), Columns: r.columns, Where: r.where})
		var got []string
		for _, row := range rows {
			var values []string
			for _, v := range row {
				if v == nil {
					v = []byte("NULL")
				}
				values = append(values, string(v))
			}
			got = append(got, strings.Join(values, ","))
		}
		slices.Sort(got)
		want := strings.Fields(r.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s %v %s: got %q, want %q", r.table, r.columns, r.where, got, want)
		}
	}
}

// The moment is settled when Snapshot returns, whatever happens before the rows are read.
func TestSnapshotMoment(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)", "INSERT INTO items VALUES (1)")
	db := open(t, c)
	open := connect(t, c.URL)
	run(t, open, "BEGIN")
	run(t, open, "INSERT INTO items VALUES (2)")
	before := value(t, open, "SELECT pg_current_wal_lsn()::text")
	var xid, later uint32
	if err := open.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	rel := describe(t, db, "items")
	s, err := db.Snapshot(t.Context(), postgres.Query{Relation: rel, Columns: []int{0}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	run(t, open, "COMMIT")
	if err := open.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid").Scan(&later); err != nil {
		t.Fatal(err)
	}
	taken, lsn := s.Taken()
	if taken.Sees(pg.XID(xid)) || taken.Sees(pg.XID(later)) || !taken.Sees(pg.XID(xid-1)) {
		t.Errorf("snapshot %s sees the wrong ones of %d and %d", taken, xid, later)
	}
	if at, err := pg.ParseLSN(before); err != nil || lsn < at {
		t.Errorf("snapshot at %s, after %s", lsn, before)
	}
	n := 0
	if err := s.Rows(t.Context(), func(pg.Row) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	skipped, err := db.Snapshot(t.Context(), postgres.Query{Relation: rel, SkipRows: true})
	if err != nil {
		t.Fatal(err)
	}
	if taken, _ := skipped.Taken(); !taken.Sees(pg.XID(xid)) {
		t.Errorf("snapshot without rows: %s", taken)
	}
	skipped.Close()
}

func TestSnapshotFailures(t *testing.T) {
	t.Parallel()
	c := config(t)
	role := "reader_" + c.StreamID
	do(t, c.URL, "CREATE ROLE "+role+" LOGIN REPLICATION PASSWORD 'secret'",
		"CREATE TABLE items (id int PRIMARY KEY, v text)",
		"INSERT INTO items SELECT i, 'x' FROM generate_series(1, 1000) i", "CREATE TABLE guarded (id int)",
		"ALTER TABLE guarded ENABLE ROW LEVEL SECURITY", "GRANT SELECT ON guarded TO "+role)
	db := open(t, c)
	asRole := c
	asRole.URL = at(t, c.URL, role, "")
	poor := open(t, asRole)
	rel := describe(t, db, "items")
	read := func(db *postgres.DB, q postgres.Query, fn func(pg.Row) error) error {
		s, err := db.Snapshot(t.Context(), q)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Rows(t.Context(), fn)
	}
	nothing := func(pg.Row) error { return nil }
	fails := func(what string, err error, changed, odd bool, text string) {
		t.Helper()
		var e *postgres.SnapshotError
		if !errors.As(err, &e) || e.TableChanged != changed || e.Unexpected != odd || e.Text != text {
			t.Errorf("%s: got %+v, %v", what, e, err)
		}
	}
	fails("no privilege", read(poor, postgres.Query{Relation: rel, Columns: []int{0}}, nothing), false, false,
		"Unable to create initial snapshot: permission denied for table items")
	fails("policy", read(poor, postgres.Query{Relation: describe(t, poor, "guarded"), Columns: []int{0}}, nothing), false,
		false, `Unable to create initial snapshot: query would be affected by row-level security policy for table "guarded"`)
	q := postgres.Query{Relation: rel, Columns: []int{0}, Where: "1 / (id - id) = 1"}
	fails("condition", read(db, q, nothing), false, true, "Unexpected error while creating snapshot: division by zero")

	mine := errors.New("mine")
	n := 0
	if err := read(db, postgres.Query{Relation: rel, Columns: []int{0, 1}}, func(pg.Row) error {
		if n++; n == 10 {
			return mine
		}
		return nil
	}); err != mine || n != 10 {
		t.Errorf("the caller's error: %v after %d rows", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := db.Snapshot(ctx, postgres.Query{Relation: rel, Columns: []int{0}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rows(ctx, func(pg.Row) error { cancel(); return nil }); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	s.Close()

	changed := "Schema changed while creating snapshot"
	for _, ddl := range []string{"ALTER TABLE items ALTER v TYPE varchar", "ALTER TABLE items DROP CONSTRAINT items_pkey",
		"ALTER TABLE items ADD w int", "ALTER TABLE items RENAME v TO u", "DROP TABLE items", "CREATE TABLE items (id int)"} {
		before := rel
		if ddl[:4] == "ALTE" {
			before = describe(t, db, "items")
		}
		do(t, c.URL, ddl)
		fails(ddl, read(db, postgres.Query{Relation: before, Columns: []int{0}}, nothing), true, false, changed)
	}
}

// Somebody holds a table for longer than we wait for it, and then all connections are taken.
func TestSnapshotWaitsAreBounded(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.PoolSize = 1
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)")
	db := open(t, c)
	rel := describe(t, db, "items")
	conn := connect(t, c.URL)
	run(t, conn, "BEGIN")
	run(t, conn, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
	q := postgres.Query{Relation: rel, Columns: []int{0}}
	var e *postgres.SnapshotError
	if _, err := db.Snapshot(t.Context(), q); !errors.As(err, &e) ||
		e.Text != "Snapshot timed out while waiting for a table lock" {
		t.Errorf("locked: %v", err)
	}
	run(t, conn, "ROLLBACK")
	s, err := db.Snapshot(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := db.Snapshot(t.Context(), q); !errors.As(err, &e) || e.Text != "Database connection not available" {
		t.Errorf("no connection left: %v", err)
	}
}

// BenchmarkSnapshot reads rows of the shape that the performance goals are stated in; compare with
// psql -c 'COPY items TO STDOUT' > /dev/null.
func BenchmarkSnapshot(b *testing.B) {
	c := config(b)
	const rows = 200_000
	do(b, c.URL, `CREATE TABLE items (id bigint PRIMARY KEY, tenant_id int, status text, title text, price numeric,
		tags text[], updated_at timestamptz)`, fmt.Sprintf(`INSERT INTO items SELECT i, i %% 1000, 'in_progress',
		'The title of the item, as people write them, number ' || i, i * 1.25, '{alpha,beta,gamma}', now()
		FROM generate_series(1, %d) i`, rows), "VACUUM ANALYZE items")
	db := open(b, c)
	rel := describe(b, db, "items")
	b.ReportAllocs()
	for b.Loop() {
		s, err := db.Snapshot(b.Context(), postgres.Query{Relation: rel, Columns: all(rel)})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		if err := s.Rows(b.Context(), func(pg.Row) error { n++; return nil }); err != nil || n != rows {
			b.Fatal(n, err)
		}
		s.Close()
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
