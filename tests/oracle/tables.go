package oracle

// The tables: every scalar type, a composite key whose order is not the columns', no key at all, a text key with
// values stored out of line, and names that need quotes.
var (
	items = &Table{
		Schema: "public", Name: "items", Key: []string{"id"},
		Columns: []string{
			"id", "tenant", "status", "b", "i2", "i8", "f4", "f8", "n", "n2", "v", "c", "u", "d", "tm", "ts", "tz",
			"iv", "by", "j", "jb", "tags", "mood",
		},
		DDL: []string{
			`CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy')`,
			`CREATE TABLE items (id int PRIMARY KEY, tenant int, status text, b bool, i2 smallint, i8 bigint, f4 real,
			f8 double precision, n numeric, n2 numeric(8,2), v varchar(20), c char(4), u uuid, d date, tm time,
			ts timestamp, tz timestamptz, iv interval, by bytea, j json, jb jsonb, tags text[], mood mood)`,
		},
	}
	pairs = &Table{
		Schema: "public", Name: "pairs", Key: []string{"b", "a"}, Columns: []string{"a", "note", "b", "amount"},
		DDL: []string{`CREATE TABLE pairs (a int NOT NULL, note text, b text NOT NULL, amount numeric, PRIMARY KEY (b, a))`},
	}
	nokey = &Table{
		Schema: "public", Name: "nokey", Columns: []string{"a", "b", "c"},
		DDL: []string{`CREATE TABLE nokey (a bigint, b text, c bool)`},
	}
	docs = &Table{
		Schema: "public", Name: "docs", Key: []string{"name"},
		Columns: []string{"name", "folder", "body", "size", "extra"},
		DDL: []string{
			`CREATE TABLE docs (name text PRIMARY KEY, folder text, body text, size int, extra text)`,
			`ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL`,
		},
	}
	odd = &Table{
		Schema: "Odd schema", Name: "Odd/Table.name", Key: []string{`the "key"`},
		Columns: []string{`the "key"`, "has,comma", "Größe"},
		DDL: []string{
			`CREATE SCHEMA "Odd schema"`,
			`CREATE TABLE "Odd schema"."Odd/Table.name" ("the ""key""" int PRIMARY KEY, "has,comma" text, "Größe" int)`,
		},
	}
	// No shape is on this one: its changes take positions in transactions that shapes see the rest of.
	unseen = &Table{
		Schema: "public", Name: "unseen", Key: []string{"id"}, Columns: []string{"id", "x"},
		DDL: []string{`CREATE TABLE unseen (id int PRIMARY KEY, x text)`},
	}
)

// Tables returns all tables, in the order in which they must be created.
func Tables() []*Table { return []*Table{items, pairs, nokey, docs, odd, unseen} }

// Shapes returns the definitions that the tests follow.
func Shapes() []*Shape {
	return []*Shape{
		{Name: "items", Table: items},
		{Name: "items-full", Table: items, Full: true},
		{Name: "items-equal", Table: items, Where: `tenant = 3`, Full: true},
		{Name: "items-equal-param", Table: items, Where: `tenant = $1 AND status <> $2`, Params: []string{"2", "done"}},
		{Name: "items-in", Table: items, Where: `status IN ('open', 'done')`, Columns: []string{"id", "status", "tenant"}},
		{Name: "items-any", Table: items, Where: `tenant = ANY('{1,2}')`, Columns: []string{"id", "b", "jb"}},
		{Name: "items-like", Table: items, Where: `status LIKE 'o%'`},
		{Name: "items-ilike", Table: items, Where: `v ILIKE '%A_b%' OR status NOT LIKE '%e%'`},
		{Name: "items-between", Table: items, Where: `id BETWEEN $1 AND $2`, Params: []string{"5", "15"}, Full: true},
		{Name: "items-sum", Table: items, Where: `tenant * 2 + 1 > 6 AND (i8 IS NULL OR i8 <> 5)`},
		{Name: "items-null", Table: items, Where: `NOT b OR status IS NULL`},
		{Name: "items-is", Table: items, Where: `(b AND n > 1.5) IS NOT FALSE`, Columns: []string{"id", "n"}},
		{Name: "items-time", Table: items, Where: `d >= '2020-01-01' OR ts < '2000-01-01 00:00:00' OR tm = '23:59:59.5'`},
		{Name: "items-uuid", Table: items, Where: `u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' OR n2 = 0.10 OR f8 > 1`},
		{Name: "pairs", Table: pairs},
		{Name: "pairs-key", Table: pairs, Where: `b = 'x' OR a > 6`, Full: true},
		{Name: "nokey", Table: nokey},
		{Name: "nokey-true", Table: nokey, Where: `c`, Full: true},
		{Name: "docs", Table: docs},
		{Name: "docs-narrow", Table: docs, Where: `folder = 'a'`, Columns: []string{"name", "folder", "size"}},
		{Name: "docs-full", Table: docs, Where: `size > 10`, Full: true},
		{Name: "docs-toast", Table: docs, Where: `body LIKE 'a%' AND folder IS DISTINCT FROM 'b'`},
		{Name: "odd", Table: odd},
		{Name: "odd-where", Table: odd, Where: `"Größe" > 2`, Columns: []string{`the "key"`, "has,comma"}},
	}
}
