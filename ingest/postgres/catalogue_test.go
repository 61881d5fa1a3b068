package postgres_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/localpg"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

func TestOpenChecksTheServer(t *testing.T) {
	t.Parallel()
	requireE2E(t)
	server, err := localpg.Start(t.Context(), localpg.Options{Dir: t.TempDir(),
		Settings: map[string]string{"wal_level": "replica"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	good := config(t)
	do(t, good.URL, "CREATE ROLE plain_"+good.StreamID+" LOGIN PASSWORD 'secret'")
	for _, c := range []struct{ url, check, text string }{
		{server.URL(), "wal_level", `wal_level is "replica", but replication needs "logical": ` +
			`run ALTER SYSTEM SET wal_level = 'logical' and restart Postgres`},
		{at(t, good.URL, "plain_"+good.StreamID, ""), "role", `role "plain_` + good.StreamID + `" may not replicate: run ` +
			`ALTER ROLE "plain_` + good.StreamID + `" REPLICATION as a superuser (on Amazon RDS: GRANT rds_replication ` +
			`TO "plain_` + good.StreamID + `")`},
		{at(t, good.URL, "postgres", ""), "connection", `Postgres refused the password of role "postgres": ` +
			`correct the database URL`},
		{at(t, good.URL, "", "nowhere"), "connection", `there is no database "nowhere": create it or correct the ` +
			`database URL`},
	} {
		_, err := postgres.Open(t.Context(), postgres.Config{URL: c.url})
		var e *postgres.CheckError
		if !errors.As(err, &e) || e.Check != c.check || e.Text != c.text || !postgres.Permanent(err) {
			t.Errorf("got %v, want %s: %s", err, c.check, c.text)
		}
	}
	// The pooled URL is tried too.
	good.PooledURL = at(t, good.URL, "postgres", "")
	if _, err := postgres.Open(t.Context(), good); !postgres.Permanent(err) {
		t.Errorf("wrong password for the pool: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	c := config(t)
	do(t, c.URL, `CREATE SCHEMA "odd ""one"`, "CREATE TYPE mood AS ENUM ('sad')", "CREATE DOMAIN tags AS text[]",
		"CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
		`CREATE TABLE "odd ""one"."It's" (a int, dropped int, tenant text COLLATE ci, id bigint NOT NULL,
			price numeric(10,2), grid int[][], moods mood[], tags tags, v int2vector, c text COLLATE "C",
			twice int GENERATED ALWAYS AS (a * 2) STORED, PRIMARY KEY (id, tenant) INCLUDE (a))`,
		`ALTER TABLE "odd ""one"."It's" DROP dropped`,
		"CREATE TABLE copied AS SELECT ARRAY[1, 2] AS a", "CREATE TABLE empty ()",
		"CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE VIEW looks AS SELECT 1")
	db := open(t, c)
	rel, err := db.Describe(t.Context(), shape.Table{Schema: `odd "one`, Name: "It's"})
	if err != nil {
		t.Fatal(err)
	}
	none := int32(-1)
	want := []pg.Column{
		{Name: "a", Type: 23, Typmod: none, TypeName: "int4", TypeSQL: "integer"},
		{Name: "tenant", Type: 25, Typmod: none, TypeName: "text", TypeSQL: "text", NotNull: true, PK: 2,
			Collation: "nondeterministic"},
		{Name: "id", Type: 20, Typmod: none, TypeName: "int8", TypeSQL: "bigint", NotNull: true, PK: 1},
		{Name: "price", Type: 1700, Typmod: 10<<16 | 6, TypeName: "numeric", TypeSQL: "numeric(10,2)"},
		{Name: "grid", Type: 1007, Typmod: none, TypeName: "int4", TypeSQL: "integer[]", Dims: 2},
		{Name: "moods", Typmod: none, TypeName: "mood", TypeSQL: "mood[]", Dims: 1},
		{Name: "tags", Typmod: none, TypeName: "tags", TypeSQL: "tags", Collation: "default"},
		{Name: "v", Type: 22, Typmod: none, TypeName: "int2vector", TypeSQL: "int2vector"},
		{Name: "c", Type: 25, Typmod: none, TypeName: "text", TypeSQL: "text", Collation: "C"},
		{Name: "twice", Type: 23, Typmod: none, TypeName: "int4", TypeSQL: "integer", Generated: true},
	}
	for i := range rel.Columns {
		if i < len(want) && want[i].Type == 0 { // of a type that the test made
			want[i].Type = rel.Columns[i].Type
		}
	}
	if !reflect.DeepEqual(rel.Columns, want) {
		t.Errorf("got  %+v\nwant %+v", rel.Columns, want)
	}
	if rel.OID == 0 || rel.Schema != `odd "one` || rel.Name != "It's" || rel.Kind != "r" || rel.ReplicaIdentity != "d" {
		t.Errorf("got %+v", rel)
	}
	if got := describe(t, db, "copied").Columns[0]; got.Dims != 1 || got.TypeName != "int4" {
		t.Errorf("array of CREATE TABLE AS: %+v", got)
	}
	if got := describe(t, db, "empty"); len(got.Columns) != 0 || got.Kind != "r" {
		t.Errorf("table without columns: %+v", got)
	}
	if got := describe(t, db, "root"); got.Kind != "p" || got.Columns[0].PK != 1 {
		t.Errorf("partitioned table: %+v", got)
	}
	for _, name := range []string{"looks", "It's", "nothing"} {
		_, err := db.Describe(t.Context(), shape.Table{Schema: "public", Name: name})
		if !errors.Is(err, postgres.ErrNoTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
