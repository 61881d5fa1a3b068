package where_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
)

// wideColumns are the columns of the oracle's table beside its key; family says where their values come from.
var wideColumns = []struct {
	name, sql string
	oid       pg.OID
	family    string
}{
	{"b", "bool", 16, "bool"}, {"b2", "bool", 16, "bool"}, {"i2", "int2", 21, "int2"}, {"i2b", "int2", 21, "int2"},
	{"i4", "int4", 23, "int4"}, {"i4b", "int4", 23, "int4"}, {"i8", "int8", 20, "int8"}, {"i8b", "int8", 20, "int8"},
	{"f4", "float4", 700, "float4"}, {"f4b", "float4", 700, "float4"}, {"f8", "float8", 701, "float8"},
	{"f8b", "float8", 701, "float8"}, {"n", "numeric", 1700, "numeric"}, {"nb", "numeric", 1700, "numeric"},
	{"t", "text", 25, "text"}, {"tc", `text COLLATE "C"`, 25, "text"}, {"v", "varchar", 1043, "text"},
	{"c", "char(4)", 1042, "short"}, {"cb", "char(6)", 1042, "short"}, {"nm", "name", 19, "short"},
	{"u", "uuid", 2950, "uuid"}, {"u2", "uuid", 2950, "uuid"}, {"d", "date", 1082, "date"}, {"d2", "date", 1082, "date"},
	{"ti", "time", 1083, "time"}, {"ti2", "time", 1083, "time"}, {"ts", "timestamp", 1114, "timestamp"},
	{"ts2", "timestamp", 1114, "timestamp"}, {"tz", "timestamptz", 1184, "timestamptz"},
	{"tz2", "timestamptz", 1184, "timestamptz"}, {"j", "jsonb", 3802, "json"}, {"arr", "int4[]", 1007, "array"},
}

// edges are the values of each family, as constants and in rows.
var edges = map[string][]string{
	"bool": {"t", "f"},
	"int2": {"0", "1", "-1", "2", "7", "32767", "-32768"},
	"int4": {"0", "1", "-1", "3", "7", "100000", "2147483647", "-2147483648"},
	"int8": {"0", "1", "-1", "3", "2147483648", "9007199254740993", "9223372036854775807", "-9223372036854775808"},
	"float4": {"0", "-0", "1", "1.1", "-1.5", "0.1", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity", "1e20",
		"16777217", "2.5"},
	"float8": {"0", "-0", "1", "1.1", "-1.5", "0.1", "1.7976931348623157e308", "5e-324", "NaN", "Infinity", "-Infinity",
		"1e20", "9007199254740993", "1.100000023841858", "2.5", "3.5", "-2.5"},
	"numeric": {"0", "0.00", "1", "1.0", "1.10", "-1.5", "0.1", "NaN", "Infinity", "-Infinity", "0.0000000001",
		"12345678901234567890.123456789", "-99999999999999999999", "1e-30", "1e40", "2.5", "-2.5", "9007199254740993",
		"1.100000023841858", "10000", "9999.9999", "0.0001", "3"},
	"text": {"", " ", "a", "A", "b", "ab", "abc", "aBc", "a ", "a  ", "é", "É", "e\u0301", "日本語", "a%b", "a_b",
		`a\b`, "Z",
		"zz", "1", "ä", "ß", "aaaaaaaaaab", "a\nb", "\U0001F600", "{a,b}", "NULL"},
	"short": {"", "a", "A", "ab", "a b", "é", "日本", "a%", "zz", "a\\", "ab "},
	"uuid": {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"},
	"date": {"2024-02-29", "2024-01-01", "1999-12-31", "infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC",
		"5874897-12-31", "0001-01-01", "0001-12-31 BC", "294277-01-01", "294276-12-31", "1970-01-01"},
	"time": {"00:00:00", "24:00:00", "23:59:59.999999", "12:00:00.5", "12:00", "01:02:03"},
	"timestamp": {"2024-01-01 00:00:00", "2024-01-01 00:00:00.000001", "infinity", "-infinity", "0044-03-15 10:00:00 BC",
		"294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "1999-12-31 23:59:59.5", "2024-01-01T00:00:00",
		"0001-12-31 00:00:00 BC", "2024-02-29"},
	"timestamptz": {"2024-01-01 00:00:00+00", "2024-01-01 02:00:00+02", "2024-01-01T00:00:00Z", "infinity", "-infinity",
		"2024-01-01 00:00:00.123456+00", "0044-03-15 10:00:00+00 BC", "294276-12-31 23:59:59.999999+00",
		"2023-12-31 23:00:00-01:00", "2024-06-01T10:00:00.5+05:30", "2024-02-29"},
	"json":  {"{}", "null"},
	"array": {"{}", "{1,2}"},
}

var patterns = []string{"", "a%", "%a", "%a%", "_", "__", "%", "a_c", "A%", "%b", `a\%b`, `a\_b`, "%é%", "%_%_%",
	"日%", "a%a%b",
	"%a%b%", "_b%", "a ", "%\u0301", "a%%b", `%\\%`}

func pick(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// clause is a generated condition with the conditions inside it.
type clause struct {
	text  string
	parts []clause
}

// generator makes well-typed clauses, and sometimes ones that only look it.
type generator struct {
	rand   *rand.Rand
	params []string
}

var numbers = []string{"int2", "int4", "int8", "float4", "float8", "numeric"}

func (g *generator) condition(depth int) clause {
	if depth > 0 {
		switch g.rand.IntN(10) {
		case 0, 1, 2:
			a, b := g.condition(depth-1), g.condition(depth-1)
			op := pick(g.rand, []string{" AND ", " OR ", " = ", " IS DISTINCT FROM "})
			return clause{"(" + a.text + ")" + op + "(" + b.text + ")", []clause{a, b}}
		case 3:
			a := g.condition(depth - 1)
			form := pick(g.rand, []string{"NOT (%s)", "(%s) IS TRUE", "(%s) IS NOT TRUE", "(%s) IS FALSE", "(%s) IS NULL",
				"(%s) IS NOT FALSE", "(%s) IS UNKNOWN", "(%s) IS NOT UNKNOWN", "(%s) IS NOT NULL"})
			return clause{fmt.Sprintf(form, a.text), []clause{a}}
		}
	}
	switch g.rand.IntN(12) {
	case 0:
		return clause{text: pick(g.rand, []string{"b", "b2", "true", "b = true", "NULL", "false", "b <> b2", "b > b2",
			"i4::bool", "b::int4 = i4", "d::timestamp > ts", "ts2 = d2", "d <> ts", "+ i4 > - i2"})}
	case 1:
		c := wideColumns[g.rand.IntN(len(wideColumns))]
		return clause{text: c.name + pick(g.rand, []string{" IS NULL", " IS NOT NULL", " IS DISTINCT FROM NULL"})}
	case 2:
		op := pick(g.rand, []string{"LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"})
		if g.rand.IntN(6) == 0 {
			p := quote(pick(g.rand, []string{"a!%b", "!a", `a\%`, "!!%", "!_%"}))
			return clause{text: g.text() + " " + op + " " + p + " ESCAPE '!'"}
		}
		return clause{text: g.text() + " " + op + " " + g.constant("text", pick(g.rand, patterns))}
	case 3, 4, 5, 6:
		return g.comparison(func() string { return g.number(2) }, numbers)
	case 7, 8:
		return g.comparison(g.text, []string{"text", "short"})
	}
	family := pick(g.rand, []string{"uuid", "date", "time", "timestamp", "timestamptz", "bool"})
	return g.comparison(func() string { return g.leaf(family) }, []string{family})
}

// comparison makes one of the forms of comparison between operands, with constants of the given families.
func (g *generator) comparison(operand func() string, families []string) clause {
	op := pick(g.rand, []string{"=", "=", "<>", "!=", "<", "<=", ">", ">="})
	x := operand()
	list := func(of func() string) string {
		n := 1 + g.rand.IntN(4)
		if g.rand.IntN(10) == 0 {
			n = 20
		}
		items := make([]string, n)
		for i := range items {
			items[i] = of()
			if g.rand.IntN(12) == 0 {
				items[i] = "NULL"
			}
		}
		return strings.Join(items, ", ")
	}
	family := pick(g.rand, families)
	switch g.rand.IntN(12) {
	case 0, 1:
		return clause{text: x + pick(g.rand, []string{" IN (", " NOT IN ("}) + list(operand) + ")"}
	case 2:
		return clause{text: x + pick(g.rand, []string{" IN (", " NOT IN ("}) +
			list(func() string { return g.constant(family, pick(g.rand, edges[family])) }) + ")"}
	case 3, 4:
		between := pick(g.rand, []string{" BETWEEN ", " NOT BETWEEN ", " BETWEEN SYMMETRIC ", " NOT BETWEEN SYMMETRIC "})
		return clause{text: x + between + operand() + " AND " + operand()}
	case 5, 6:
		quantifier := pick(g.rand, []string{" ANY ", " ALL "})
		return clause{text: x + " " + op + quantifier + "(" + g.array(family, list) + ")"}
	case 7:
		return clause{text: x + pick(g.rand, []string{" IS DISTINCT FROM ", " IS NOT DISTINCT FROM "}) + operand()}
	}
	return clause{text: x + " " + op + " " + operand()}
}

func (g *generator) array(family string, list func(func() string) string) string {
	literal := "{" + list(func() string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(pick(g.rand, edges[family])) + `"`
	}) + "}"
	if g.rand.IntN(8) == 0 {
		literal = "{}"
	}
	switch g.rand.IntN(5) {
	case 0:
		g.params = append(g.params, literal)
		return fmt.Sprintf("$%d", len(g.params))
	case 1:
		return quote(literal)
	case 2:
		return quote(literal) + "::" + typeOf(family) + "[]"
	case 3:
		return "ARRAY[" + list(func() string { return quote(pick(g.rand, edges[family])) }) + "]::" + typeOf(family) + "[]"
	}
	return "ARRAY[" + list(func() string { return g.constant(family, pick(g.rand, edges[family])) }) + "]"
}

func typeOf(family string) string {
	if family == "short" {
		return "text"
	}
	return family
}

// constant writes a value as a literal, a typed literal, a number or a parameter.
func (g *generator) constant(family, value string) string {
	switch g.rand.IntN(6) {
	case 0, 1:
		g.params = append(g.params, value)
		return fmt.Sprintf("$%d", len(g.params))
	case 2:
		return quote(value) + "::" + typeOf(family)
	case 3, 4:
		if strings.HasPrefix(family, "int") || family == "numeric" && strings.ContainsAny(value, "0123456789") {
			return value
		}
	}
	return quote(value)
}

// leaf is a column or a constant of a family.
func (g *generator) leaf(family string) string {
	if g.rand.IntN(3) == 0 {
		return g.constant(family, pick(g.rand, edges[family]))
	}
	var names []string
	for _, c := range wideColumns {
		if c.family == family {
			names = append(names, c.name)
		}
	}
	return pick(g.rand, names)
}

func (g *generator) number(depth int) string {
	switch {
	case depth > 0 && g.rand.IntN(4) == 0:
		return "(" + g.number(depth-1) + pick(g.rand, []string{" + ", " - ", " * ", " / "}) + g.number(depth-1) + ")"
	case depth > 0 && g.rand.IntN(12) == 0:
		return "(- " + g.number(depth-1) + ")"
	case depth > 0 && g.rand.IntN(12) == 0:
		return "(" + g.number(depth-1) + ")::" + pick(g.rand, numbers)
	}
	return g.leaf(pick(g.rand, numbers))
}

func (g *generator) text() string {
	switch g.rand.IntN(10) {
	case 0:
		c := wideColumns[g.rand.IntN(len(wideColumns)-2)]
		return c.name + pick(g.rand, []string{"::text", "::varchar"})
	case 1, 2, 3:
		return g.leaf("short")
	case 4:
		return "(" + g.number(1) + ")::" + pick(g.rand, []string{"int2", "int4", "int8", "numeric"}) + "::text"
	}
	return g.leaf("text")
}

func TestGeneratorIsSeeded(t *testing.T) {
	make := func() string {
		g := &generator{rand: rand.New(rand.NewPCG(7, 7))}
		return g.condition(3).text
	}
	if a, b := make(), make(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}
