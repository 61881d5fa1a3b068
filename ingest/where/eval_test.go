package where_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/pg"
)

// person makes a row of people with the given columns, the others NULL.
func person(values map[string]string) pg.Row {
	r := make(pg.Row, len(people.Columns))
	for name, v := range values {
		r[people.Index(name)] = []byte(v)
	}
	return r
}

func parse(t testing.TB, text string, params ...string) *where.Expr {
	t.Helper()
	e, err := where.Parse(text, people, params)
	if err != nil {
		t.Fatalf("%s: %s", text, err)
	}
	return e
}

var ada = person(map[string]string{
	"id": "1", "age": "36", "rank": "-2", "ok": "t", "title": "Countess", "code": "ab  ", "price": "10.50", "f4": "1.1",
	"f8": "NaN", "born": "1815-12-10", "at": "2024-01-01 00:00:00+00", "hour": "12:00:00", "v": "x", "doc": "{}",
	"since": "infinity", "c": "é", "Odd name": "0",
})

func TestEval(t *testing.T) {
	var row where.Row
	row.Reset(people, ada)
	for _, c := range []struct {
		in   string
		want where.Truth
	}{
		{``, where.True}, {`age = 36`, where.True}, {`age <> 36`, where.False}, {`nm = 'x'`, where.Null},
		{`nm = 'x' OR ok`, where.True}, {`nm = 'x' AND ok`, where.Null}, {`nm = 'x' AND NOT ok`, where.False},
		{`nm = 'x' IS UNKNOWN`, where.True}, {`nm IS NULL AND doc IS NOT NULL`, where.True},
		{`nm IS DISTINCT FROM 'x'`, where.True}, {`price = 10.5`, where.True}, {`price::text = '10.50'`, where.True},
		{`f4 = 1.1`, where.False}, {`f4 = 1.1::float4`, where.True}, {`f4 IN (1.1, 2)`, where.True},
		{`f8 > 'Infinity'`, where.True}, {`f8 = 'NaN'`, where.True}, {`code = 'ab'`, where.True},
		{`code LIKE 'ab'`, where.False}, {`code::text LIKE 'ab'`, where.True}, {`code = 'ab '::text`, where.False},
		{`title ILIKE 'count%'`, where.True}, {`title LIKE 'count%'`, where.False}, {`c LIKE '_'`, where.True},
		{`age / "Odd name" > 0`, where.Fault}, {`ok OR age / "Odd name" > 0`, where.True},
		{`age / "Odd name" > 0 OR ok`, where.Fault}, {`NOT (age / "Odd name" > 0)`, where.Fault},
		{`(age / "Odd name" > 0) IS NULL`, where.Fault}, {`rank - 32767::int2 < 0`, where.Fault},
		{`age IN (1, NULL)`, where.Null}, {`age NOT IN (36, NULL)`, where.False}, {`age = ANY('{}')`, where.False},
		{`age <> ALL('{}')`, where.True}, {`nm = ANY('{}')`, where.False}, {`age > ALL('{1,2,35}')`, where.True},
		{`born < '1815-12-11'`, where.True}, {`born < since`, where.True}, {`at = '2024-01-01T01:00:00+01:00'`, where.True},
		{`since > '294276-12-31'`, where.True}, {`hour BETWEEN '11:00' AND '12:00'`, where.True},
		{`age BETWEEN SYMMETRIC 40 AND 30`, where.True}, {`age BETWEEN 40 AND 30`, where.False},
		{`age IN (` + strings.Repeat("1, ", 40) + `36)`, where.True},
	} {
		if got := parse(t, c.in).Eval(&row); got != c.want {
			t.Errorf("%.60s: got %s, want %s", c.in, got, c.want)
		}
	}
}

// TestCanonical: clauses on one line mean the same, and are the same shape.
func TestCanonical(t *testing.T) {
	one := func(text string, params ...string) string { return parse(t, text, params...).Canonical() }
	for _, same := range [][]string{
		{one(`age = 5`), one(`  AGE=5 `), one(`"age" = '5'`), one(`age = $1`, "5"), one(`age = $2`, "x", " 5"),
			one(`(age) = (5) -- comment`), one(`age = 2 + 3`), one(`age = 5 AND true`)},
		{one(``), one(`1 = 1`), one(`true`), one(`ok OR true`)},
		{one(`at > '2024-01-01'`), one(`at > '2024-01-01T00:00:00Z'`), one(`at > $1`, "2024-01-01 01:00:00+01")},
		{one(`title = 'a'`), one(`title = $1::text`, "a")},
		{one(`age IN (1, 2)`), one(`age = ANY('{1,2}')`), one(`age = ANY($1)`, "{1, 2}"), one(`age = ANY(ARRAY[1,2])`)},
	} {
		for _, s := range same {
			if s != same[0] {
				t.Errorf("%s is not %s", s, same[0])
			}
		}
	}
	if one(`price = 1.0`) == one(`price = 1`) {
		t.Error("scale is part of a numeric constant")
	}
}

func TestAccess(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`age = 5`, `age [5] nil`}, {`5 = age AND ok`, `age [5] "ok"`}, {`id IN (1, 2, NULL, 1)`, `id [1 2] nil`},
		{`age = 1 OR age IN (2, 3)`, `age [1 2 3] nil`}, {`age = 1 OR ok`, `none`}, {`age <> ALL('{1}')`, `none`},
		{`price = 1.50`, `price [1.5] nil`}, {`age = 1.50`, `age [1.5] nil`}, {`code = 'a  '`, `code [a] nil`},
		{`v = 'a '`, `v [a ] nil`}, {`age = rank`, `none`}, {`age > 1`, `none`}, {`nm = 'x'`, `nm [x] nil`},
		{`ok AND age > 1 AND id = 1 AND rank IN (1, 2)`, `id [1] ("ok" AND ("age" > '1'::int4) AND ("rank" = ANY ` +
			`(ARRAY['1'::int4, '2'::int4]::int4[])))`},
		{`born = '2024-01-01'::timestamp`, `none`}, {`id::float8 = 1`, `none`}, {`age = ANY('{}')`, `age [] nil`},
	} {
		e, got := parse(t, c.in), "none"
		if a, ok := e.Access(); ok {
			rest := "nil"
			if e.Residual() != nil {
				rest = e.Residual().SQL()
			}
			got = fmt.Sprintf("%s %s %s", people.Columns[a.Column].Name, a.Keys, rest)
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestColumns(t *testing.T) {
	e := parse(t, `price > 1 AND (id = 2 OR at::text = 'x') AND id < 9 AND (ok OR true)`)
	if got := fmt.Sprint(e.Columns()); got != "[0 6 11]" {
		t.Error(got)
	}
}

// TestRowConvertsOnce: however many expressions look at a value, it is converted once a row.
func TestRowConvertsOnce(t *testing.T) {
	var row where.Row
	exprs := []*where.Expr{parse(t, `price > 1 AND price < 100`), parse(t, `price = 3 OR age > 1`), parse(t, `price <> 1`)}
	for n := 1; n <= 3; n++ {
		row.Reset(people, ada)
		for _, e := range exprs {
			e.Eval(&row)
		}
		if row.Conversions() != 2*n {
			t.Errorf("%d conversions after %d rows", row.Conversions(), n)
		}
	}
}

func TestEvalDoesNotAllocate(t *testing.T) {
	var row where.Row
	for _, text := range []string{
		`age = 36`, `title LIKE 'Count%' AND v ILIKE '%X%'`, `price BETWEEN 1 AND 20.5`,
		`at > '2024-01-01' OR born < '2000-01-01'`,
		`f8 = 1 OR f4 <> 2.5`, `age IN (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,36)`, `code = 'ab' AND NOT (ok IS NULL)`,
		`age + rank * 2 > 10`, `age = 36.0`, `born < since`, `(age = 36) = ok`, `at::text = 'x'`, `age::text = '36'`,
	} {
		e := parse(t, text)
		n := testing.AllocsPerRun(100, func() {
			row.Reset(people, ada)
			e.Eval(&row)
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

// TestShortRow: a row with fewer values than the relation has columns is no reason to stop.
func TestShortRow(t *testing.T) {
	var row where.Row
	row.Reset(people, pg.Row{[]byte("1")})
	for _, text := range []string{`title = 'a'`, `title IS NULL`, `at::text = 'a'`} {
		if got := parse(t, text).Eval(&row); got == where.True {
			t.Errorf("%s: %s", text, got)
		}
	}
	if _, ok := row.Key(4); ok {
		t.Error("a key of nothing")
	}
}

// TestHammer: one expression is used, and others are parsed, by many goroutines.
func TestHammer(t *testing.T) {
	shared := parse(t, `age + rank > 1 AND title LIKE 'C%' AND price * 2 > 1`)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var row where.Row
			own, err := where.Parse(fmt.Sprintf("age = %d", i), people, nil)
			if err != nil {
				t.Error(err)
				return
			}
			for range 200 {
				row.Reset(people, ada)
				if shared.Eval(&row) != where.True || own.Eval(&row) != where.False {
					t.Error("wrong answer")
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestBetweenDoesNotExplode: BETWEEN repeats its operands, so nesting it doubles the tree each time.
func TestBetweenDoesNotExplode(t *testing.T) {
	text := "ok"
	for range 60 {
		text = "(" + text + " BETWEEN SYMMETRIC true AND ok)"
	}
	if _, err := where.Parse(text, people, nil); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkEval(b *testing.B) {
	for _, text := range []string{`age = 36`, `title LIKE 'Count%'`, `price > 1.5`, `at > '2024-01-01'`, `age + rank > 10`,
		`age > 1 AND title = 'Countess' AND ok`} {
		b.Run(text, func(b *testing.B) {
			e := parse(b, text)
			var row where.Row
			b.ReportAllocs()
			for b.Loop() {
				row.Reset(people, ada)
				e.Eval(&row)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parse(b, `age = $1 AND title LIKE 'a%'`, "7")
	}
}
