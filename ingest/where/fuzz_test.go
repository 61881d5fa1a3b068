package where_test

import (
	"errors"
	"testing"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/pg"
)

// FuzzParse: no text does harm; what is accepted evaluates, and its SQL means the same when it is parsed again.
func FuzzParse(f *testing.F) {
	where.Warm() // instrumented for fuzzing it takes longer than one run may
	for _, s := range []string{
		"", " ", "1 x 1", "age = $1", "age = any($1)", "title like $1 escape '!'", "a;b", ";;;", "age = 1 -- ", "/* ", "'",
		`"`,
		"$$", "E'\\xff'", "U&'\\0000' = title", "((((", "NOT NOT NOT ok", "age in (1, null, rank, $1)", "1/0 = 1",
		"age between 1 and",
		"- - - age = 1", "1::int4::int8::text = title", "ok is not unknown", "code = 'a' and nm = 'b' or v < c",
		"at = 'infinity'",
		"price = 1e1000000", "price * 1e1000 > 1", "null is null", "null = null", "array[1] = 1",
		"age = 99999999999999999999",
		"f8::numeric > 1", "-9223372036854775808 = id", "1 = all(array[]::int4[])", "doc is null", "age = 0x10 or age = 1_0",
		"(ok between ok and ok) between symmetric ok and true", "title collate \"C\" < 'a'", "x.y.z", "*", "f(*)", "$0 = 1",
		"$99999999999 = 1", "age = '\x00'", "age::int4[] = 1", "age = any('{1,2}'::int4[])", "select 1", "1 = 1 \\g",
		"\u0130 = 1",
	} {
		f.Add(s, "1")
	}
	f.Add("title = $1", "\xff")
	f.Add("age = any($1)", "{1,NULL,\"2\"}")
	row := new(where.Row)
	f.Fuzz(func(t *testing.T, text, param string) {
		e, err := where.Parse(text, people, []string{param})
		if err != nil {
			var refusal *where.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("%q: %s", text, err)
			}
			return
		}
		row.Reset(people, ada)
		outcome := e.Eval(row)
		if a, ok := e.Access(); ok {
			checkAccess(t, e, a, row, outcome)
		}
		row.Reset(people, make(pg.Row, len(people.Columns)))
		e.Eval(row)
		again, err := where.Parse(e.SQL(), people, nil)
		if err != nil {
			return // COLLATE and the like are SQL, but not of the language
		}
		row.Reset(people, ada)
		if again.Eval(row) != outcome {
			t.Fatalf("%q is %s, its SQL %q is %s", text, outcome, e.SQL(), again.Eval(row))
		}
	})
}

// checkAccess holds that looking up and evaluating the rest is evaluating the whole.
func checkAccess(t *testing.T, e *where.Expr, a where.Access, row *where.Row, outcome where.Truth) {
	t.Helper()
	found := false
	if key, ok := row.Key(a.Column); ok {
		for _, k := range a.Keys {
			found = found || k == string(key)
		}
	}
	in := found && (e.Residual() == nil || e.Residual().Eval(row) == where.True)
	if in != (outcome == where.True) {
		t.Fatalf("%s: %s, but the access says %v", e.SQL(), outcome, in)
	}
}
