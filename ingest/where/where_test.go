package where_test

import (
	"strings"
	"testing"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/pg"
)

// people is a relation with a column of most types.
var people = &pg.Relation{Schema: "public", Name: "people", Columns: []pg.Column{
	{Name: "id", Type: 20, PK: 1}, {Name: "age", Type: 23}, {Name: "rank", Type: 21}, {Name: "ok", Type: 16},
	{Name: "title", Type: 25, Collation: "default"}, {Name: "code", Type: 1042, Collation: "default"},
	{Name: "price", Type: 1700}, {Name: "f4", Type: 700}, {Name: "f8", Type: 701}, {Name: "key", Type: 2950},
	{Name: "born", Type: 1082}, {Name: "at", Type: 1184}, {Name: "since", Type: 1114}, {Name: "hour", Type: 1083},
	{Name: "doc", Type: 3802, TypeName: "jsonb", TypeSQL: "jsonb"}, {Name: "v", Type: 1043, Collation: "default"},
	{Name: "c", Type: 25, Collation: "C"}, {Name: "nd", Type: 25, Collation: "nondeterministic"},
	{Name: "de", Type: 25, Collation: "de_DE"}, {Name: "Odd name", Type: 23}, {Name: "nm", Type: 19},
}}

func TestParseError(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`1 x 1`, `At location 17: syntax error at or near "x"`},
		{`invalid syntax`, `At location 23: syntax error at or near "syntax"`},
		{`age = `, `At location 21: syntax error at end of input`},
		{`age = 'x`, `At location 21: unterminated quoted string at or near "'x"`},
		{`age = 1; drop table people`, `unescaped ";" causing statement split`},
		{`age = 1 limit 1`, `malformed query ending with SQL clauses`},
		{`age = 1 order by 1`, `malformed query ending with SQL clauses`},
		{`age = 1 group by age`, `malformed query ending with SQL clauses`},
		{`age = 1 union select 1`, `malformed query ending with SQL clauses`},
		{`age = 1 for update`, `malformed query ending with SQL clauses`},
		{`age + 1`, `WHERE clause must return a boolean`},
		{`1`, `WHERE clause must return a boolean`},
		{`age = $1`, `At location 6: parameter $1 was not provided`},
		{`foo = 1`, `At location 0: unknown reference foo`},
		{`people.age = 1`, `At location 0: unknown reference people.age`},
		{`"Foo" = 1`, `At location 0: unknown reference "Foo"`},
		{`age = title`, `At location 4: Could not select an operator overload`},
		{`title = 5`, `At location 6: Could not select an operator overload`},
		{`at = since`, `At location 3: Could not select an operator overload`},
		{`- title = 'a'`, `At location 0: Could not select an operator overload`},
		{`title ~ 'a'`, `At location 6: unknown binary operator ~`},
		{`age % 2 = 1`, `At location 4: unknown binary operator %`},
		{`@ age = 1`, `At location 0: unknown unary operator @`},
		{`title similar to 'a'`, `At location 6: expression ~ of :AEXPR_SIMILAR is not currently supported`},
		{`nullif(age, 1) = 1`, `At location 0: expression = of :AEXPR_NULLIF is not currently supported`},
		{`case when ok then true end`, `At location 0: CaseExpr is not supported in this context`},
		{`exists (select 1)`, `At location 0: SubLink is not supported in this context`},
		{`age in (select 1)`, `At location 4: SubLink is not supported in this context`},
		{`row(age, 1) = row(1, 1)`, `At location 0: RowExpr is not supported in this context`},
		{`title = 'a' collate "C"`, `At location 12: CollateClause is not supported in this context`},
		{`born < current_date`, `At location 7: SQLValueFunction is not supported in this context`},
		{`lower(title) = 'a'`, `At location 0: unknown or unsupported function lower/1`},
		{`count(*) = 1`, `At location 0: aggregation is not supported in this context`},
		{`concat(variadic title) = 'a'`,
			`At location 0: explicit VARIADIC function calls are not currently supported`},
		{`age and ok`, `At location 0: reference age of type int4 is not castable to bool`},
		{`not (age + 1)`, `At location 9: expression of type int4 is not castable to bool`},
		{`age is true`, `At location 4: argument of IS TRUE must be bool, not int4`},
		{`age = 'x'`, `At location 6: invalid syntax for type int4: x`},
		{`rank = '100000'`, `At location 7: invalid syntax for type int2: 100000`},
		{`age = any(1)`, `At location 10: argument of ANY must be an array`},
		{`age = any('1')`, `At location 10: invalid syntax for type int4[]: 1`},
		{`age = any('{{1}}')`, `At location 10: invalid syntax for type int4[]: {{1}}`},
		{`age = any(array[1, ok])`, `At location 10: ARRAY types int4 and bool cannot be matched`},
		{`title = $1 and age = $1`, `At location 21: type conflict for $1: int4 and text`},
		{`title = $1 and age = any($1)`, `At location 25: type conflict for $1: int4[] and text`},
		{`age::json = '1'`, `At location 5: unsupported type json`},
		{`age::varchar(3) = '1'`, `At location 5: unsupported type varchar with a length or precision`},
		{`at::date = '2024-01-01'`, `At location 0: unknown cast from type timestamptz to type date`},
		{`'x'::text::int4 = 1`, `At location 0: could not cast value "x" from text to int4`},
		{`doc = '{}'`, `At location 0: reference doc of type jsonb can only be tested with IS [NOT] NULL`},
		{`1/0 = 1`, `At location 1: Failed to apply function to constant arguments`},
		{`2147483647 + 1 = age`, `At location 11: Failed to apply function to constant arguments`},
		{`title like age`, `At location 6: Could not select an operator overload`},
		{`title like c`, `At location 11: the pattern of LIKE must be a constant`},
		{`title like 'a\'`, `At location 11: LIKE pattern must not end with escape character`},
		{`title ilike 'é'`,
			`At location 12: ILIKE folds only the letters A to Z reliably; other letters depend on the locale`},
		{`nd = 'a'`, `At location 0: columns with a nondeterministic collation are not supported`},
		{`c = de`, `At location 2: could not determine which collation to use for string comparison`},
		{`age = b'1'`, `At location 6: BitString values are not supported`},
		{`age operator(pg_catalog.=) 1`, `At location 4: operators with a schema are not supported`},
		{"age = 1\x00 or true", `where clause must be UTF-8 text without null characters`},
		{"age = '\xff'", `where clause must be UTF-8 text without null characters`},
		{strings.Repeat("(", 300) + "ok" + strings.Repeat(")", 300), `where clause is nested too deeply (max depth is 256)`},
		{strings.Repeat("NOT ", 9_000) + "ok", `where clause is nested too deeply (max depth is 256)`},
		{"age = 1" + strings.Repeat("+1", 30_000), `where clause is nested too deeply (max depth is 256)`},
		{"price" + strings.Repeat("*2.5", 70) + " > 1",
			`At location 261: too many multiplications and divisions of numeric (max is 64)`},
		{"title LIKE '" + strings.Repeat("_", 1_001) + "'",
			`At location 11: the pattern of LIKE is too long (max length is 1000 bytes)`},
		{"ok" + strings.Repeat(" ", 65_536), `where clause is too long (max length is 65536 bytes)`},
	} {
		var params []string
		if strings.Contains(c.in, "and") && strings.Contains(c.in, "$1") {
			params = []string{"1"}
		}
		_, err := where.Parse(c.in, people, params)
		if err == nil {
			t.Errorf("%.60s: accepted", c.in)
		} else if err.Error() != c.want {
			t.Errorf("%.60s\n got %s\nwant %s", c.in, err, c.want)
		}
	}
}

// TestSQL pins the text that goes to Postgres, which is also a clause's identity.
func TestSQL(t *testing.T) {
	for _, c := range []struct {
		in     string
		params []string
		want   string
	}{
		{``, nil, ``}, {"  \n", nil, ``}, {`true = true`, nil, ``}, {`1=1`, nil, ``}, {`ok or true`, nil, ``},
		{`false`, nil, `false`}, {`NULL`, nil, `NULL::bool`}, {`'yes'`, nil, ``},
		{`age = 5`, nil, `("age" = '5'::int4)`},
		{`AGE  =  $1`, []string{" 5 "}, `("age" = '5'::int4)`},
		{`id = $1`, []string{"9000000000"}, `("id" = '9000000000'::int8)`},
		{`id = -9223372036854775808`, nil, `("id" = '-9223372036854775808'::int8)`},
		{`"Odd name" <> 1`, nil, `("Odd name" <> '1'::int4)`},
		{`title = 'it''s \'`, nil, `("title" = E'it''s \\'::text)`},
		{`title = $1`, []string{"'; drop table x; --"}, `("title" = '''; drop table x; --'::text)`},
		{`v = 'a'`, nil, `(("v"::text) = 'a'::text)`},
		{`code = 'a '`, nil, `("code" = 'a '::bpchar)`},
		{`title < 'b'`, nil, `("title" COLLATE "C" < 'b'::text)`},
		{`c < 'b'`, nil, `("c" < 'b'::text)`},
		{`title ilike 'b%'`, nil, `("title" COLLATE "C" ILIKE 'b%'::text)`},
		{`title not like '1!%%' escape '!'`, nil, `("title" NOT LIKE E'1\\%%'::text)`},
		{`age = 1.5`, nil, `(("age"::numeric) = '1.5'::numeric)`},
		{`f4 = 1.1`, nil, `("f4" = '1.1'::float8)`},
		{`f4 in (1.1, 2)`, nil, `("f4" = ANY (ARRAY['1.1'::float4, '2'::float4]::float4[]))`},
		{`age in (1, 2, null)`, nil, `("age" = ANY (ARRAY['1'::int4, '2'::int4, NULL::int4]::int4[]))`},
		{`age not in (1, 2)`, nil, `("age" <> ALL (ARRAY['1'::int4, '2'::int4]::int4[]))`},
		{`age in (1, rank, 3)`, nil, `(("age" = ANY (ARRAY['1'::int4, '3'::int4]::int4[])) OR ("age" = "rank"))`},
		{`age = any($1)`, []string{"{1,NULL, 2}"}, `("age" = ANY (ARRAY['1'::int4, NULL::int4, '2'::int4]::int4[]))`},
		{`v = any('{"a b",c}')`, nil, `(("v"::text) = ANY (ARRAY['a b'::text, 'c'::text]::text[]))`},
		{`age = any(array[rank, 1])`, nil, `(("age" = ("rank"::int4)) OR ("age" = '1'::int4))`},
		{`age between 1 and 2`, nil, `(("age" >= '1'::int4) AND ("age" <= '2'::int4))`},
		{`age is null`, nil, `("age" IS NULL)`},
		{`doc is not null`, nil, `("doc" IS DISTINCT FROM NULL)`},
		{`age is distinct from null`, nil, `("age" IS NOT NULL)`},
		{`age is not distinct from 1`, nil, `("age" IS NOT DISTINCT FROM '1'::int4)`},
		{`ok is not true`, nil, `("ok" IS NOT TRUE)`},
		{`not ok and age = 1 and 1 = 1`, nil, `((NOT "ok") AND ("age" = '1'::int4))`},
		{`born < '2024-01-01'::timestamp`, nil, `("born" < '2024-01-01 00:00:00'::timestamp)`},
		{`at >= $1`, []string{"2024-01-01T10:00:00.5+02:00"}, `("at" >= '2024-01-01 08:00:00.5+00'::timestamptz)`},
		{`at::text = 'x'`, nil, `("at"::text = 'x'::text)`},
		{`key = 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'`, nil, `("key" = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid)`},
		{`age + 1 * 2 > - rank`, nil, `(("age" + '2'::int4) > (- "rank"))`},
		{`$1 = $2`, []string{"a", "b"}, `false`},
		{`age = $1 or id = $1`, []string{"7"}, `(("age" = '7'::int4) OR ("id" = '7'::int4))`},
		{`nm < 'x'`, nil, `("nm" < 'x'::name)`},
	} {
		e, err := where.Parse(c.in, people, c.params)
		if err != nil {
			t.Errorf("%s: %s", c.in, err)
			continue
		}
		if got := e.SQL(); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
		if again, err := where.Parse(e.SQL(), people, nil); err != nil {
			if !strings.Contains(e.SQL(), "COLLATE") {
				t.Errorf("%s does not parse: %s", e.SQL(), err)
			}
		} else if again.SQL() != e.SQL() {
			t.Errorf("%s\nparses as %s", e.SQL(), again.SQL())
		}
	}
}
