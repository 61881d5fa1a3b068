package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/ingest/pgoutput"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/pg"
)

const published = `SELECT coalesce(string_agg(tablename, ' ' ORDER BY tablename), '') FROM pg_publication_tables`

const full = `SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class WHERE relreplident = 'f'`

func TestPublish(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)", "CREATE TABLE child () INHERITS (items)",
		"CREATE TABLE ready (id int)", "ALTER TABLE ready REPLICA IDENTITY FULL",
		"CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		"CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10)",
		"CREATE TABLE high PARTITION OF root FOR VALUES FROM (10) TO (99) PARTITION BY RANGE (id)",
		"CREATE TABLE higher PARTITION OF high FOR VALUES FROM (20) TO (30)")
	db := open(t, c)
	acquire(t, db)
	var group sync.WaitGroup
	for _, name := range []string{"items", "items", "root", "ready", "root", "items"} {
		rel := describe(t, db, name)
		group.Go(func() {
			if err := db.Publish(t.Context(), rel); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	group.Wait()
	conn := connect(t, c.URL)
	if got, want := value(t, conn, published), "higher items low ready"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}
	if got, want := value(t, conn, full), "high higher items low ready root"; got != want {
		t.Errorf("identity full %q, want %q", got, want)
	}
	publish(t, db, "low") // by way of its root
	if got := value(t, conn, "SELECT count(*)::text FROM pg_publication_rel"); got != "3" {
		t.Errorf("%s tables in the publication", got)
	}
	run(t, conn, "CREATE TABLE later PARTITION OF root FOR VALUES FROM (-10) TO (0)")
	publish(t, db, "root")
	if got, want := value(t, conn, full), "high higher items later low ready root"; got != want {
		t.Errorf("identity full %q, want %q", got, want)
	}
}

// What nothing needs to be changed about is not locked.
func TestPublishAgainTakesNoLock(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)")
	db := open(t, c)
	acquire(t, db)
	publish(t, db, "items")
	conn := connect(t, c.URL)
	run(t, conn, "BEGIN")
	rel := describe(t, db, "items")
	run(t, conn, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
	if err := db.Publish(t.Context(), rel); err != nil {
		t.Error(err)
	}
}

// A transaction that has written before its table was added is in no stream with what it wrote then, and in no
// snapshot before it commits. So Publish must not return while there is one.
func TestPublishWaitsForWriters(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, "CREATE TABLE items (id int PRIMARY KEY)", "ALTER TABLE items REPLICA IDENTITY FULL")
	db := open(t, c)
	s := start(t, db)
	rel := describe(t, db, "items")
	writer := connect(t, c.URL)
	run(t, writer, "BEGIN")
	run(t, writer, "INSERT INTO items VALUES (1)")
	var e *postgres.TableError
	if err := db.Publish(t.Context(), rel); !errors.As(err, &e) ||
		e.Text != "Snapshot timed out while waiting for a table lock" {
		t.Fatalf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- db.Publish(t.Context(), rel) }()
	until(t, connect(t, c.URL), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass)")
	run(t, writer, "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	rows := snapshotRows(t, db, postgres.Query{Relation: rel, Columns: []int{0}})
	if len(rows) != 1 {
		t.Errorf("snapshot after the writer: %q", rows)
	}
	run(t, writer, "INSERT INTO items VALUES (2)")
	var d pgoutput.Decoder
	if changes, _ := transaction(t, s, &d); string(changes[0].New[0]) != "2" {
		t.Errorf("stream begins with %q", changes[0].New)
	}
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	c := config(t)
	role := "app_" + c.StreamID
	do(t, c.URL, "CREATE ROLE "+role+" LOGIN REPLICATION PASSWORD 'secret'",
		"CREATE TABLE items (id int PRIMARY KEY)", "CREATE TABLE filtered (id int PRIMARY KEY)",
		"CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY)", "CREATE TABLE keyed (id int PRIMARY KEY)",
		"GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	owner := open(t, c)
	acquire(t, owner)
	name := "electric_publication_" + c.StreamID
	do(t, c.URL, "ALTER PUBLICATION "+name+" ADD TABLE filtered WHERE (id > 1), keyed")

	asRole, manual := c, c
	asRole.URL = at(t, c.URL, role, "")
	manual.ManualPublishing = true
	ownsPublication := config(t)
	do(t, ownsPublication.URL, "CREATE TABLE items (id int PRIMARY KEY)", "GRANT SELECT ON items TO "+role,
		"GRANT CREATE ON DATABASE "+ownsPublication.StreamID+" TO "+role)
	ownsPublication.URL = at(t, ownsPublication.URL, role, "")
	halfOwner := open(t, ownsPublication)
	acquire(t, halfOwner)

	for _, r := range []struct {
		db    *postgres.DB
		table string
		want  string
	}{
		{open(t, asRole), "items", `Database table "public.items" is missing from the publication "` + name +
			`" and Electric lacks privileges to add it`},
		{open(t, manual), "items", `Database table "public.items" is missing from the publication "` + name +
			`" and the ELECTRIC_MANUAL_TABLE_PUBLISHING setting prevents Electric from adding it`},
		{open(t, manual), "keyed", `Database table "public.keyed" does not have its replica identity set to FULL`},
		{open(t, asRole), "keyed", `Database table "public.keyed" does not have its replica identity set to FULL`},
		{owner, "filtered", `Database table "public.filtered" is published in part only: remove its row filter and ` +
			`column list from the publication "` + name + `"`},
		{owner, "scratch", `Unable to create initial snapshot: cannot add relation "scratch" to publication`},
		{halfOwner, "items", "Unable to create initial snapshot: must be owner of table items"},
	} {
		var e *postgres.TableError
		err := r.db.Publish(t.Context(), describe(t, r.db, r.table))
		if !errors.As(err, &e) || e.Text != r.want || e.Table != "public."+r.table {
			t.Errorf("%s: got %v, want %s", r.table, err, r.want)
		}
	}

	for _, ddl := range []string{"ALTER TABLE items RENAME TO things", "DROP TABLE things"} {
		var e *postgres.TableError
		rel := &pg.Relation{OID: pg.OID(oid(t, connect(t, c.URL))), Schema: "public", Name: "items", Kind: "r"}
		do(t, c.URL, ddl)
		if err := owner.Publish(t.Context(), rel); !errors.As(err, &e) ||
			e.Text != `Database table "public.items" has been dropped or renamed` {
			t.Errorf("%s: %v", ddl, err)
		}
	}
	rel := describe(t, owner, "keyed")
	do(t, c.URL, "DROP PUBLICATION "+name)
	var e *postgres.TableError
	if err := owner.Publish(t.Context(), rel); !errors.As(err, &e) ||
		e.Text != fmt.Sprintf("Publication %q not found in the database", name) {
		t.Errorf("no publication: %v", err)
	}
}

// oid is that of the table called items or things.
func oid(t testing.TB, conn *pgx.Conn) uint32 {
	t.Helper()
	var id uint32
	err := conn.QueryRow(t.Context(), "SELECT oid FROM pg_class WHERE relname IN ('items', 'things')").Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
