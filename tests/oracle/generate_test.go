package oracle_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/tests/oracle"
)

func TestGeneratorRepeats(t *testing.T) {
	a, b, other := oracle.NewGenerator(7, 1, 4), oracle.NewGenerator(7, 1, 4), oracle.NewGenerator(7, 2, 4)
	differ := false
	for range 200 {
		x, y := a.Next(), b.Next()
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("the same seed made %+v and %+v", x, y)
		}
		differ = differ || !reflect.DeepEqual(x, other.Next())
	}
	if !differ {
		t.Error("two writers of one seed write the same")
	}
}

func TestGeneratorReaches(t *testing.T) {
	g := oracle.NewGenerator(1, 0, 1)
	var all strings.Builder
	rollbacks := 0
	for range 500 {
		txn := g.Next()
		if txn.Rollback {
			rollbacks++
		}
		all.WriteString(strings.Join(txn.Statements, "\n") + "\n")
	}
	for _, want := range []string{
		"INSERT INTO items", "UPDATE items SET id = id +", "UPDATE items SET id = -id", "DELETE FROM items", "repeat(md5(",
		"UPDATE docs SET name", "UPDATE pairs SET a =", "INSERT INTO nokey", "SAVEPOINT s", "ROLLBACK TO",
		"RELEASE SAVEPOINT", "Größe", "INSERT INTO unseen", "b = b",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("500 transactions without %q", want)
		}
	}
	if rollbacks == 0 || rollbacks > 200 {
		t.Errorf("%d of 500 roll back", rollbacks)
	}
}

func TestRowKey(t *testing.T) {
	one, slash := "1", `a/"b`
	table := &oracle.Table{Schema: "public", Name: `x/"y`, Columns: []string{"a", "b", "c"}}
	if got, want := table.RowKey([]*string{&one, nil, &slash}), `"public"."x//""y"/"1"/_/"a//"b"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQuery(t *testing.T) {
	table := &oracle.Table{Schema: "s", Name: "t", Columns: []string{"a", "b", "c"}, Key: []string{"c"}}
	s := oracle.Shape{Table: table, Where: "a = $1 OR b = $2", Params: []string{"x'y", "2"}, Columns: []string{"b", "a"}}
	want := `SELECT "a", "b", "c" FROM "s"."t" WHERE a = 'x''y' OR b = '2'`
	if got := s.Query(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
