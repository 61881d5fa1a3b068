package datum_test

import (
	"testing"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

// FuzzRead: no text of a row does harm, and what is read prints as something that is read as the same value.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "-", "0", "-0", "NaN", "-Infinity", "1e400", "1e-400", ".", "-.", "1.", "99999999999999999999999999.9", "t", "x",
		"2024-02-30", "2024-01-01 BC", "99999999-01-01", "0000-01-01", "24:00:00", "24:00:00.000001", "infinity",
		"2024-01-01 24:00:00", "294276-12-31 23:59:59.999999-15:59:59", "4714-11-24 00:00:00+15 BC", "2024-01-01T00:00:00+",
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "9223372036854775808", "\xff", "1e9999999999999999999", "  ", "0x1p-1074",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for typ := datum.Other; typ <= datum.Timestamptz; typ++ {
			var v datum.Value
			v.Read(typ, []byte(s))
			check(t, typ, s, &v)
			if c, err := datum.Parse(typ, s); err == nil {
				check(t, typ, s, &c)
			}
		}
	})
}

func check(t *testing.T, typ datum.Type, s string, v *datum.Value) {
	t.Helper()
	order := datum.Comparer(typ)
	if v.State != datum.OK || order == nil {
		return
	}
	printed := v.Append([]byte{}, typ)
	if order(v, v) != 0 {
		t.Fatalf("%s %q is not itself", typ, s)
	}
	var again datum.Value
	again.Read(typ, printed)
	if again.State != datum.OK || order(&again, v) != 0 {
		t.Fatalf("%s %q prints as %q, which is another value", typ, s, printed)
	}
	if string(again.AppendKey(nil, typ)) != string(v.AppendKey(nil, typ)) {
		t.Fatalf("%s %q: another key after printing", typ, s)
	}
	for to := datum.Bool; to <= datum.Timestamptz; to++ {
		if cast := datum.Cast(typ, to); cast != nil {
			var w datum.Value
			cast(&w, v)
		}
	}
}

// FuzzNumeric: arithmetic on any two numbers agrees with itself.
func FuzzNumeric(f *testing.F) {
	for _, s := range [][2]string{{"0", "0"}, {"1", "3"}, {"NaN", "Infinity"}, {"-1e40", "0.00010"}, {"9.99999", "-0.1"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, x, y string) {
		a, errA := datum.Parse(datum.Numeric, x)
		b, errB := datum.Parse(datum.Numeric, y)
		if errA != nil || errB != nil {
			return
		}
		order := datum.Comparer(datum.Numeric)
		if order(&a, &b) != -order(&b, &a) {
			t.Fatalf("%s and %s: the order depends on the side", x, y)
		}
		var sum, back, product, quotient datum.Value
		datum.Binary('+', datum.Numeric)(&sum, &a, &b)
		datum.Binary('-', datum.Numeric)(&back, &sum, &b)
		datum.Binary('*', datum.Numeric)(&product, &a, &b)
		datum.Binary('/', datum.Numeric)(&quotient, &a, &b)
		text := string(back.Append(nil, datum.Numeric))
		if text != "NaN" && order(&back, &a) != 0 {
			t.Fatalf("%s + %s - %s = %s", x, y, y, text)
		}
	})
}

// FuzzLike compares the matcher with the definition of LIKE.
func FuzzLike(f *testing.F) {
	for _, s := range [][2]string{{"", ""}, {"%", "a"}, {"%_%", "é"}, {`\%`, "%"}, {"%a%b%a", "aabba"}, {"_", "\xff"},
		{`\`, ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 12 {
			return // the definition takes exponential time
		}
		for _, fold := range []bool{false, true} {
			p, ok := datum.CompilePattern(pattern, fold)
			if !ok {
				continue
			}
			if got, want := p.Match([]byte(s)), like([]rune(pattern), []rune(s), fold); isText(pattern, s) && got != want {
				t.Fatalf("%q LIKE %q (fold %v) = %v", s, pattern, fold, got)
			}
		}
	})
}

func isText(texts ...string) bool {
	for _, s := range texts {
		for _, r := range s {
			if r == '\uFFFD' {
				return false
			}
		}
	}
	return true
}

// like is LIKE as its definition reads.
func like(p, s []rune, fold bool) bool {
	lower := func(r rune) rune {
		if fold && r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	switch {
	case len(p) == 0:
		return len(s) == 0
	case p[0] == '%':
		return like(p[1:], s, fold) || len(s) > 0 && like(p, s[1:], fold)
	case len(s) == 0:
		return false
	case p[0] == '_':
		return like(p[1:], s[1:], fold)
	case p[0] == '\\':
		return lower(p[1]) == lower(s[0]) && like(p[2:], s[1:], fold)
	}
	return lower(p[0]) == lower(s[0]) && like(p[1:], s[1:], fold)
}
