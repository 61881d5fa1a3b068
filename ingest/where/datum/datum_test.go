package datum_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

// TestParse gives the value of each constant as it is printed again; "" is a refusal.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		typ      datum.Type
		in, want string
	}{
		{datum.Bool, "t", "true"}, {datum.Bool, " OFF ", "false"}, {datum.Bool, "o", ""}, {datum.Bool, "", ""},
		{datum.Int2, "-32768", "-32768"}, {datum.Int2, "32768", ""}, {datum.Int4, " +7 ", "7"}, {datum.Int4, "1.0", ""},
		{datum.Int8, "-9223372036854775808", "-9223372036854775808"}, {datum.Int8, "9223372036854775808", ""},
		{datum.Int8, "-", ""}, {datum.Int4, "0x1F", ""}, {datum.Int4, "1_000", ""}, {datum.Int4, "--1", ""},
		{datum.Float8, "1e3", "1000"}, {datum.Float8, "-inf", "-Infinity"}, {datum.Float8, "nan", "NaN"},
		{datum.Float8, "1e400", ""}, {datum.Float8, "1e-400", ""}, {datum.Float8, "0e-400", "0"}, {datum.Float8, "0x1p3", ""},
		{datum.Float8, "e5", ""}, {datum.Float8, "-0", "-0"}, {datum.Float4, "16777217", "1.6777216e+07"},
		{datum.Float4, "1e39", ""}, {datum.Float8, "1_0", ""},
		{datum.Numeric, "1.50", "1.50"}, {datum.Numeric, "-.5", "-0.5"}, {datum.Numeric, "5.", "5"}, {datum.Numeric, ".", ""},
		{datum.Numeric, "1.5e3", "1500"}, {datum.Numeric, "1.5e-3", "0.0015"}, {datum.Numeric, "-0.00", "0.00"},
		{datum.Numeric, "1e9999999999", ""}, {datum.Numeric, "1e", ""}, {datum.Numeric, "inf", "Infinity"},
		{datum.Numeric, "000123.4500", "123.4500"}, {datum.Numeric, "1.5e0", "1.5"}, {datum.Numeric, "0e5", "0"},
		{datum.UUID, "{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{datum.UUID, "a0eebc99", ""}, {datum.UUID, "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11", ""},
		{datum.UUID, " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", ""},
		{datum.Text, " a ", " a "}, {datum.Text, "a\x00", ""}, {datum.Text, "\xff", ""},
		{datum.Name, strings.Repeat("é", 40), strings.Repeat("é", 31)},
		{datum.Date, "2024-02-29", "2024-02-29"}, {datum.Date, "2023-02-29", ""}, {datum.Date, "infinity", "infinity"},
		{datum.Date, "0001-01-01 BC", "0001-01-01 BC"}, {datum.Date, "0000-01-01", ""}, {datum.Date, "5874898-01-01", ""},
		{datum.Date, "4714-11-23 BC", ""}, {datum.Date, "4714-11-24 BC", "4714-11-24 BC"}, {datum.Date, "24-01-01", ""},
		{datum.Date, "5874897-12-31", "5874897-12-31"}, {datum.Date, "now", ""}, {datum.Date, "1/2/2024", ""},
		{datum.Time, "24:00", "24:00:00"}, {datum.Time, "24:00:00.1", ""}, {datum.Time, "12:00:00.50", "12:00:00.5"},
		{datum.Time, "12:60", ""}, {datum.Time, "12:00:00.", ""}, {datum.Time, "12:00:00.1234567", ""},
		{datum.Timestamp, "2024-01-01", "2024-01-01 00:00:00"}, {datum.Timestamp, "2024-01-01T10:00Z", "2024-01-01 10:00:00"},
		{datum.Timestamp, "294277-01-01", ""}, {datum.Timestamp, "2024-01-01 24:00:00", ""},
		{datum.Timestamp, "1999-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999"},
		{datum.Timestamptz, "2024-01-01T00:00:00.5+05:30", "2023-12-31 18:30:00.5+00"},
		{datum.Timestamptz, "2024-01-01 00:00:00-1530", "2024-01-01 15:30:00+00"},
		{datum.Timestamptz, "2024-01-01 00:00:00+16", ""}, {datum.Timestamptz, "2024-01-01 00:00:00 UTC", ""},
		{datum.Timestamptz, "0044-03-15 10:00:00+00 BC", "0044-03-15 10:00:00+00 BC"},
	} {
		v, err := datum.Parse(c.typ, c.in)
		got := ""
		if err == nil {
			got = string(v.Append(nil, c.typ))
		}
		if got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.typ, c.in, got, c.want)
		}
	}
}

// TestArithmetic holds results that Postgres printed; "" is an error there.
func TestArithmetic(t *testing.T) {
	for _, c := range []struct {
		typ  datum.Type
		expr string
		want string
	}{
		{datum.Int2, "32767 + 1", ""}, {datum.Int4, "-2147483648 - 1", ""}, {datum.Int4, "-7 / 2", "-3"},
		{datum.Int4, "-2147483648 / -1", ""}, {datum.Int8, "-9223372036854775808 / -1", ""}, {datum.Int4, "1 / 0", ""},
		{datum.Int8, "9223372036854775807 * 2", ""}, {datum.Int8, "-9223372036854775808 * -1", ""},
		{datum.Int8, "-4294967296 * 2147483648", "-9223372036854775808"}, {datum.Int8, "9223372036854775807 + 1", ""},
		{datum.Int8, "-9223372036854775808 - 1", ""}, {datum.Int8, "0 - -9223372036854775808", ""},
		{datum.Numeric, "1 / 3", "0.33333333333333333333"}, {datum.Numeric, "2 / 3", "0.66666666666666666667"},
		{datum.Numeric, "10000 / 3", "3333.3333333333333333"}, {datum.Numeric, "1 / 0.0001", "10000.0000000000000000"},
		{datum.Numeric, "1.10 * 1.10", "1.2100"}, {datum.Numeric, "0.1 + 0.20", "0.30"}, {datum.Numeric, "1 - 1.00", "0.00"},
		{datum.Numeric, "-1 / 3", "-0.33333333333333333333"}, {datum.Numeric, "Infinity - Infinity", "NaN"},
		{datum.Numeric, "Infinity * 0", "NaN"}, {datum.Numeric, "1 / Infinity", "0"}, {datum.Numeric, "Infinity / 0", ""},
		{datum.Numeric, "NaN / 0", "NaN"}, {datum.Numeric, "Infinity / -2", "-Infinity"}, {datum.Numeric, "0 / 5",
			"0.00000000000000000000"},
		{datum.Float8, "1e308 * 10", ""}, {datum.Float8, "1e-308 / 1e308", ""}, {datum.Float8, "NaN / 0", "NaN"},
		{datum.Float8, "1 / Infinity", "0"}, {datum.Float8, "0 / 0", ""}, {datum.Float8, "Infinity - Infinity", "NaN"},
		{datum.Float4, "16777216 + 1", "1.6777216e+07"}, {datum.Float4, "3e38 + 3e38", ""},
	} {
		f := strings.Fields(c.expr)
		a, errA := datum.Parse(c.typ, f[0])
		b, errB := datum.Parse(c.typ, f[2])
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		var v datum.Value
		datum.Binary(f[1][0], c.typ)(&v, &a, &b)
		got := ""
		if v.State == datum.OK {
			got = string(v.Append(nil, c.typ))
		}
		if got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.typ, c.expr, got, c.want)
		}
	}
}

// TestCast holds results that Postgres printed; "" is an error there.
func TestCast(t *testing.T) {
	for _, c := range []struct {
		from datum.Type
		in   string
		to   datum.Type
		want string
	}{
		{datum.Numeric, "2.5", datum.Int4, "3"}, {datum.Numeric, "-2.5", datum.Int4, "-3"},
		{datum.Float8, "2.5", datum.Int4, "2"}, {datum.Float8, "9223372036854775807", datum.Int8, ""},
		{datum.Numeric, "NaN", datum.Int8, ""}, {datum.Int4, "70000", datum.Int2, ""},
		{datum.Int8, "9007199254740993", datum.Float8, "9.007199254740992e+15"},
		{datum.Numeric, "1e400", datum.Float8, ""}, {datum.Float8, "1e39", datum.Float4, ""},
		{datum.Float8, "0.1", datum.Numeric, "0.1"}, {datum.Float4, "0.1", datum.Numeric, "0.1"},
		{datum.Bpchar, "a  ", datum.Text, "a"}, {datum.Bool, "t", datum.Text, "true"},
		{datum.Date, "294277-01-01", datum.Timestamp, ""},
		{datum.Date, "infinity", datum.Timestamp, "infinity"},
		{datum.Int4, "-256", datum.Bool, "true"}, {datum.Int4, "0", datum.Bool, "false"},
	} {
		src, err := datum.Parse(c.from, c.in)
		if err != nil {
			t.Fatal(err)
		}
		var v datum.Value
		datum.Cast(c.from, c.to)(&v, &src)
		got := ""
		if v.State == datum.OK {
			got = string(v.Append(nil, c.to))
		}
		if got != c.want {
			t.Errorf("%s %s as %s: got %q, want %q", c.from, c.in, c.to, got, c.want)
		}
	}
}

// TestKey holds that keys are equal just when values are.
func TestKey(t *testing.T) {
	for typ, texts := range map[datum.Type][]string{
		datum.Numeric: {"0", "0.00", "1", "1.0", "-1", "10", "0.1", "0.10", "NaN", "Infinity", "-Infinity"},
		datum.Float8:  {"0", "-0", "1", "1.0", "NaN", "Infinity", "1e300"}, datum.Float4: {"0", "-0", "1.5"},
		datum.Bpchar: {"", " ", "a", "a  ", " a"}, datum.Text: {"", " ", "a", "a "}, datum.Int8: {"0", "1", "-1"},
		datum.Timestamptz: {"2024-01-01 00:00:00+00", "2024-01-01 01:00:00+01", "infinity"}, datum.Bool: {"t", "f", "true"},
	} {
		for _, a := range texts {
			for _, b := range texts {
				va, _ := datum.Parse(typ, a)
				vb, _ := datum.Parse(typ, b)
				keys := string(va.AppendKey(nil, typ)) == string(vb.AppendKey(nil, typ))
				if equal := datum.Comparer(typ)(&va, &vb) == 0; equal != keys {
					t.Errorf("%s %q and %q: equal %v, keys equal %v", typ, a, b, equal, keys)
				}
			}
		}
	}
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		fold, want bool
	}{
		{"", "", false, true}, {"", "a", false, false}, {"%", "", false, true}, {"_", "é", false, true}, {"_",
			"e\u0301", false, false},
		{"a%", "abc", false, true}, {"a%", "ba", false, false}, {"%b%", "abc", false, true}, {"%a%a", "aa", false, true},
		{"%a%a", "a", false, false}, {`a\%`, "a%", false, true}, {`a\%`, "ab", false, false}, {`\\`, `\`, false, true},
		{`\a`, "a", false, true}, {"A%", "abc", false, false}, {"A%", "abc", true, true}, {"aé%", "Aéx", true, true},
		{"%aab", "aaab", false, true}, {"%_b", "b", false, false}, {"%_b", "éb", false, true}, {"_%_", "ab", false, true},
		{"_%_", "a", false, false}, {"%日_", "日本", false, true}, {"%a_b%c", "xaabaxbyc", false, true},
	} {
		p, ok := datum.CompilePattern(c.pattern, c.fold)
		if !ok || p.Match([]byte(c.s)) != c.want {
			t.Errorf("%q LIKE %q (fold %v): want %v", c.s, c.pattern, c.fold, c.want)
		}
	}
	if _, ok := datum.CompilePattern(`a\`, false); ok {
		t.Error("a lone escape at the end is accepted")
	}
}

// TestLikeIsBounded: a pattern that backtracking would never finish.
func TestLikeIsBounded(t *testing.T) {
	p, _ := datum.CompilePattern(strings.Repeat("%a", 200)+"b", false)
	if p.Match([]byte(strings.Repeat("a", 5_000))) {
		t.Error("matches")
	}
}

func TestParseArray(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"{}", "[]"}, {" { } ", "[]"}, {"{1,NULL, 2 }", "[1 null 2]"}, {`{"a b","","NULL","c\"d\\"}`, `[a b  NULL c"d\]`},
		{"{a b}", "[a b]"}, {`{"a" , b}`, "[a b]"}, {"", "refused"}, {"{", "refused"}, {"{1", "refused"}, {"{1,", "refused"},
		{"{1,}", "refused"}, {"{,1}", "refused"}, {"{{1}}", "refused"}, {`{"a}`, "refused"}, {`{"a"b}`, "refused"},
		{`{a"b"}`, "refused"}, {"{1}x", "refused"}, {"[0:1]={1,2}", "refused"}, {`{"\`, "refused"}, {`{a\b}`, "refused"},
	} {
		elems, ok := datum.ParseArray(c.in)
		out := []string{}
		for _, e := range elems {
			if e == nil {
				out = append(out, "null")
			} else {
				out = append(out, *e)
			}
		}
		got := fmt.Sprint(out)
		if !ok {
			got = "refused"
		}
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	texts := map[datum.Type][]byte{
		datum.Int8: []byte("9223372036854775807"), datum.Numeric: []byte("12345.6700"), datum.Float8: []byte("1.5e-10"),
		datum.Timestamptz: []byte("2024-01-01 00:00:00.5+00"), datum.Date: []byte("0044-03-15 BC"), datum.Text: []byte("x"),
	}
	for typ, text := range texts {
		var v datum.Value
		if n := testing.AllocsPerRun(100, func() { v.Read(typ, text) }); n > 0 || v.State != datum.OK {
			t.Errorf("%s: %v allocations, state %d", typ, n, v.State)
		}
	}
}

func TestNaNIsAboveEverything(t *testing.T) {
	order := datum.Comparer(datum.Float8)
	nan, inf := datum.Value{F: math.NaN()}, datum.Value{F: math.Inf(1)}
	if order(&nan, &inf) != 1 || order(&inf, &nan) != -1 || order(&nan, &nan) != 0 {
		t.Error("NaN is out of place")
	}
}
