package grammar_test

import (
	"fmt"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shapeline/shapeline/ingest/where/grammar"
)

// bare is a tree without its locations.
func bare(tree *pgquery.Node) *pgquery.Node {
	tree = proto.CloneOf(tree)
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.Name() == "location" || f.Name() == "rexpr_list_start" || f.Name() == "rexpr_list_end":
				m.Clear(f)
			case f.Kind() != protoreflect.MessageKind:
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			default:
				walk(v.Message())
			}
			return true
		})
	}
	walk(tree.ProtoReflect())
	return tree
}

// compare asks for the trees of several texts, by their likeness and exactly.
func compare(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		like, lerr := grammar.Like(text)
		exact, err := grammar.Parse(text)
		if (lerr == nil) != (err == nil) || err != nil && lerr.Error() != err.Error() {
			t.Errorf("%q: %v by likeness, %v exactly", text, lerr, err)
		} else if err == nil && !proto.Equal(bare(like), bare(exact)) {
			t.Errorf("%q:\n%v\nexactly\n%v", text, bare(like), bare(exact))
		}
	}
}

func TestLike(t *testing.T) {
	compare(t, "tenant_id = 1", "tenant_id = 23", "tenant_id  =  4", "tenant_id = 999999999", "tenant_id = 9999999999", "tenant_id = 1.5",
		"tenant_id = -1", "tenant_id = 'x'", "tenant_id = 'it''s'", "tenant_id = ''", `tenant_id = E'a\nb'`, `tenant_id = U&'\0041'`, "tenant_id = x'1f'",
		"a = 'x'\n'y'", "a = 'x'\n'z'", "a = 'x' 'y'", "a1 = 1", "a2 = 1", `"A 1" = 1`, `"A 2" = 1`, `"a""1" = 1`, "a IN (1, 2)", "a IN (3,4)", "a IN (3, '4')",
		"a LIKE 'x%' AND b BETWEEN 1 AND 2", "a LIKE '%' AND b BETWEEN 30 AND 20", "a LIKE 'a' ESCAPE 'b'", "a LIKE 'c' ESCAPE 'd'",
		"a = 1::bigint", "a = 2::bigint", "a = '1'::varchar(10)", "a = '2'::varchar(20)", "a = date '2020-01-01'", "a = date '2021-02-03'",
		"a = $1 AND b = 2", "a = $2 AND b = 2", "a = $1 AND b = 3", "a = 1 -- 2", "a = 3 -- 2", "a = /* 1 */ 2", "a[1] = 2", "a[2] = 3",
		"a = 1 AND", "a = 2 AND", "a = '", "a = 1 ORDER BY 1", "a = 2 ORDER BY 2", "a = 1; SELECT 2", "t.a = 1", "a = t.1", "a = 1e5", "a = 1_0", "a = 0x10",
		"a = 1a", "é = 1", "é = 2", "a = 'é'", "a = 'ü'", "a = NULL", "a = true", "a = 1 OR true", "interval '1 day' = a", "interval '2 days' = a",
		"a = 1 IS TRUE", "a @> ARRAY[1, 2]", "a @> ARRAY[5, 6]", "a = +1", "a = +2", "a IS DISTINCT FROM 'q'", "extract(year from a) = 1", "position('a' in b) = 1")
}

func FuzzLike(f *testing.F) {
	for _, s := range []string{"a = 1 AND b = 'x'", "a IN (1, 2) OR \"b\" LIKE 'x%'", "a = $1::int4", "a = 'x'\n'y' -- 1"} {
		f.Add(s, "7", "it''s")
	}
	f.Fuzz(func(t *testing.T, text, number, str string) {
		compare(t, text, fmt.Sprintf("a = %s AND (%s)", number, text), fmt.Sprintf("a = '%s' AND (%s)", str, text), fmt.Sprintf("a = '' AND (%s)", text))
	})
}

func BenchmarkLike(b *testing.B) {
	if _, err := grammar.Like("tenant_id = 0 AND status = 'open'"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := grammar.Like(fmt.Sprintf("tenant_id = %d AND status = 'open'", i)); err != nil {
			b.Fatal(err)
		}
	}
}
