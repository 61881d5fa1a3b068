package match_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shapeline/shapeline/ingest/match"
	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/pg"
)

var rel = &pg.Relation{Schema: "public", Name: "issues", Columns: []pg.Column{
	{Name: "id", Type: 20, PK: 1}, {Name: "tenant_id", Type: 23}, {Name: "status", Type: 25, Collation: "default"},
	{Name: "price", Type: 1700}, {Name: "code", Type: 1042, Collation: "default"}, {Name: "score", Type: 701},
	{Name: "at", Type: 1184},
}}

func parse(t testing.TB, text string, params ...string) *where.Expr {
	t.Helper()
	e, err := where.Parse(text, rel, params)
	if err != nil {
		t.Fatalf("%s: %s", text, err)
	}
	return e
}

// row makes a row of the first values; "NULL" is NULL, and so is what is left out.
func row(values ...string) pg.Row {
	r := make(pg.Row, len(rel.Columns))
	for i, v := range values {
		if v != "NULL" {
			r[i] = []byte(v)
		}
	}
	return r
}

func TestMatch(t *testing.T) {
	x := match.New(rel)
	for id, text := range map[uint64]string{
		9: ``, 1: `tenant_id = 1`, 2: `tenant_id = 2`, 3: `tenant_id IN (1, 2)`, 4: `status LIKE 'o%'`,
		5: `tenant_id = 1 AND status = 'open'`, 6: `price = 1.0`, 7: `code = 'ab'`, 8: `score = -0.0`,
		10: `false`, 11: `tenant_id = 1 AND NULL`, 12: `status IS NULL`, 13: `NOT tenant_id = 1`,
		14: `at = '2024-01-01 02:00:00+02'`, 15: `tenant_id = 1.0`, 16: `tenant_id = any('{}')`,
	} {
		x.Add(id, parse(t, text))
	}
	one := row("1", "1", "open", "1.00", "ab  ", "0", "2024-01-01 00:00:00+00")
	two := row("1", "2", "done", "NULL", "abc", "NaN")
	for _, c := range []struct {
		name string
		c    pg.Change
		want string
	}{
		{"insert", pg.Change{Op: pg.Insert, New: one},
			"[1:+ 3:+ 4:+ 5:+ 6:+ 7:+ 8:+ 9:+ 14:+ 15:+]"},
		{"delete", pg.Change{Op: pg.Delete, Old: one},
			"[1:- 3:- 4:- 5:- 6:- 7:- 8:- 9:- 14:- 15:-]"},
		{"moves", pg.Change{Op: pg.Update, Old: one, New: two},
			"[1:- 2:+ 3:= 4:- 5:- 6:- 7:- 8:- 9:= 13:+ 14:- 15:-]"},
		{"stays", pg.Change{Op: pg.Update, Old: one, New: one},
			"[1:= 3:= 4:= 5:= 6:= 7:= 8:= 9:= 14:= 15:=]"},
		{"nulls", pg.Change{Op: pg.Insert, New: row()}, "[9:+ 12:+]"},
		{"residual", pg.Change{Op: pg.Update, Old: row("1", "1", "open"), New: row("1", "1", "shut")},
			"[1:= 3:= 4:- 5:- 9:= 15:=]"},
		{"truncate", pg.Change{Op: pg.Truncate}, "[]"},
	} {
		if got := show(x.Match(&c.c, nil)); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	prefix := []match.Hit{{ID: 99, New: true}}
	if got := show(x.Match(&pg.Change{Op: pg.Insert, New: row()}, prefix)); got != "[99:+ 9:+ 12:+]" {
		t.Errorf("appended to a prefix: %s", got)
	}
	for id := range uint64(20) {
		x.Remove(id)
	}
	if got := x.Match(&pg.Change{Op: pg.Update, Old: one, New: two}, nil); len(got) > 0 || x.Len() != 0 {
		t.Errorf("after removing everything: %s", show(got))
	}
}

// show prints hits as id:- for old, id:+ for new, id:= for both.
func show(hits []match.Hit) string {
	out := []string{}
	for _, h := range hits {
		out = append(out, fmt.Sprintf("%d:%s", h.ID, map[[2]bool]string{{true, false}: "-", {false, true}: "+",
			{true, true}: "=", {false, false}: "?"}[[2]bool{h.Old, h.New}]))
	}
	return fmt.Sprint(out)
}

var values = [][]string{
	{"1", "2", "3"}, {"NULL", "1", "2", "3", "-4"}, {"NULL", "", "open", "shut", "o", "a status longer than 15"},
	{"NULL", "1", "1.0", "1.00", "2.5", "NaN", "0"}, {"NULL", "a   ", "ab  ", "    "}, {"NULL", "0", "-0", "NaN", "1.5"},
	{"NULL", "2024-01-01 00:00:00+00", "infinity"},
}

var conditions = []string{
	``, `tenant_id = 1`, `tenant_id = 2`, `tenant_id IN (1, 2, NULL)`, `tenant_id = any('{1,2,3}')`, `tenant_id > 1`,
	`status = 'open'`, `status = 'a status longer than 15'`,
	`status = 'open' AND tenant_id = 1`, `status IN ('open', 'shut') AND tenant_id > 1`,
	`status LIKE 'o%'`, `status = 'open' OR status = 'shut'`, `status = 'open' OR tenant_id = 1`, `price = 1`,
	`price = 'NaN'`, `price IN (1, 2.50)`, `code = 'a'`, `code = ''`, `code::text = 'a'`, `score = 0`, `score = 'NaN'`,
	`at = '2024-01-01'`, `at = 'infinity'`, `tenant_id IS NULL`, `NOT (tenant_id = 1)`, `10 / (tenant_id - 1) > 0`,
	`tenant_id = 1 AND 10 / (tenant_id - 1) > 0`, `false`, `NULL`, `tenant_id = 1 AND NULL`, `id = 1 AND tenant_id = 1`,
	`tenant_id IN (1, 2) AND id = 3`, `tenant_id IS DISTINCT FROM 1`, `1 = tenant_id`, `tenant_id = 1.5`,
}

// TestMatchIsBruteForce compares the index with evaluating every condition, while shapes come and go.
func TestMatchIsBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	parsed := make([]*where.Expr, len(conditions))
	for i, c := range conditions {
		parsed[i] = parse(t, c)
	}
	x := match.New(rel)
	shapes := map[uint64]*where.Expr{}
	random := func() pg.Row {
		v := make([]string, len(values))
		for i := range v {
			v[i] = values[i][r.IntN(len(values[i]))]
		}
		return row(v...)
	}
	in := func(e *where.Expr, values pg.Row) bool {
		var fresh where.Row
		if values == nil {
			return false
		}
		fresh.Reset(rel, values)
		return e.Eval(&fresh) == where.True
	}
	for range 20_000 {
		id := uint64(r.IntN(60))
		if r.IntN(2) == 0 {
			shapes[id] = parsed[r.IntN(len(parsed))]
			x.Add(id, shapes[id])
		} else {
			delete(shapes, id)
			x.Remove(id)
		}
		c := pg.Change{Op: pg.Update, Old: random(), New: random()}
		switch r.IntN(4) {
		case 0:
			c.Op, c.Old = pg.Insert, nil
		case 1:
			c.Op, c.New = pg.Delete, nil
		case 2:
			c.New = c.Old.Clone()
			c.New[1] = random()[1]
		}
		var want []match.Hit
		for id, e := range shapes {
			if h := (match.Hit{ID: id, Old: in(e, c.Old), New: in(e, c.New)}); h.Old || h.New {
				want = append(want, h)
			}
		}
		slices.SortFunc(want, func(a, b match.Hit) int { return int(a.ID) - int(b.ID) })
		if got := x.Match(&c, nil); !slices.Equal(got, want) {
			t.Fatalf("%s %q -> %q\n got %s\nwant %s", c.Op, c.Old, c.New, show(got), show(want))
		}
	}
	if x.Len() != len(shapes) {
		t.Errorf("%d shapes, want %d", x.Len(), len(shapes))
	}
}

// tenants returns an index of n shapes, tenant_id = 0 ... n-1, and an update in one of them.
func tenants(t testing.TB, n int) (*match.Index, *pg.Change) {
	t.Helper()
	x := match.New(rel)
	for k := range n {
		x.Add(uint64(k), parse(t, `tenant_id = $1`, fmt.Sprint(k)))
	}
	old := row("1", fmt.Sprint(n/2), "open", "1.50", "ab  ", "0", "2024-01-01 00:00:00+00")
	changed := old.Clone()
	changed[2] = []byte("shut")
	return x, &pg.Change{Op: pg.Update, Relation: rel, Old: old, New: changed}
}

// TestWorkDoesNotGrow holds the package's one idea: neither look-ups nor evaluations depend on how many shapes exist.
func TestWorkDoesNotGrow(t *testing.T) {
	for _, n := range []int{10, 1_000} {
		x, c := tenants(t, n)
		for k := range n {
			x.Add(uint64(n+k), parse(t, `status LIKE 'o%' AND price > 1`)) // one expression
			x.Add(uint64(2*n+k), parse(t, `tenant_id = $1 AND status = 'open'`, fmt.Sprint(k)))
		}
		before := x.Stats()
		hits := x.Match(c, nil)
		after := x.Stats()
		if len(hits) != n+2 {
			t.Errorf("%d shapes: %d hits", n, len(hits))
		}
		if p, e := after.Probes-before.Probes, after.Evaluations-before.Evaluations; p > 3 || e > 4 {
			t.Errorf("%d shapes: %d probes and %d evaluations", n, p, e)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	x, c := tenants(t, 100)
	x.Add(1_000, parse(t, `status LIKE 'o%' AND price > 1 AND tenant_id IN (1, 2, 3)`))
	x.Add(1_001, parse(t, `price BETWEEN 1 AND 2 OR at > '2024-01-01' OR score > 1 OR code = 'ab'`))
	x.Add(1_002, parse(t, `price = 1.5`))
	dst := make([]match.Hit, 0, 16)
	if n := testing.AllocsPerRun(100, func() { dst = x.Match(c, dst[:0]) }); n > 0 {
		t.Errorf("%v allocations a change", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x, c := tenants(b, n)
			changes := make([]pg.Change, 1<<16) // too many for their shapes to stay in the cache
			r := rand.New(rand.NewPCG(1, 1))
			for i := range changes {
				changes[i] = pg.Change{Op: pg.Insert, Relation: rel, New: c.New.Clone()}
				changes[i].New[1] = []byte(fmt.Sprint(r.IntN(n)))
			}
			dst := make([]match.Hit, 0, 16)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				dst = x.Match(&changes[i%len(changes)], dst[:0])
			}
			if len(dst) != 1 {
				b.Fatalf("%d hits", len(dst))
			}
		})
	}
}

// BenchmarkAddRemove is one shape coming and going among many.
func BenchmarkAddRemove(b *testing.B) {
	x, _ := tenants(b, 10_000)
	e := parse(b, `tenant_id = 77 AND status = 'open'`)
	b.ReportAllocs()
	for b.Loop() {
		x.Add(1<<40, e)
		x.Remove(1 << 40)
	}
}
