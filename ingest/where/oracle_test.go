package where_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/ingest/where/datum"
	"github.com/shapeline/shapeline/internal/localpg"
	"github.com/shapeline/shapeline/internal/pg"
)

// TestOracle compares the evaluator with Postgres: random well-typed clauses over rows of edge values, each
// evaluated here on the text form of the rows, in Postgres as it was written, and in Postgres as SQL() writes it.
func TestOracle(t *testing.T) {
	if os.Getenv("SHAPELINE_TEST_E2E") != "1" {
		t.Skip("needs Postgres; make check runs it with SHAPELINE_TEST_E2E=1")
	}
	clauses, seed := 1_500, uint64(1)
	if s := os.Getenv("SHAPELINE_ORACLE_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		clauses, seed = n, rand.Uint64()
	}
	t.Logf("seed %d", seed)
	o := newOracle(t, rand.New(rand.NewPCG(seed, 0)))
	refused := map[string]int{}
	examples := map[string]string{}
	accepted, failures := 0, 0
	for range clauses {
		g := &generator{rand: o.rand}
		c := g.condition(3)
		msg, why := o.check(c, g.params)
		switch {
		case msg != "":
			if failures++; failures > 20 {
				t.Fatal("too many failures")
			}
			t.Error(o.shrink(c, g.params, msg))
		case why != "":
			key := refusalKind(why)
			refused[key]++
			examples[key] = c.text
		default:
			accepted++
		}
	}
	t.Logf("%d clauses agree on %d rows, %d rejected by both", accepted-o.bothReject, len(o.rows), o.bothReject)
	var kinds []string
	for k := range refused {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		t.Logf("refused %4d: %s   for example %.100s", refused[k], k, examples[k])
	}
}

// refusalKind drops what varies from the text of a refusal.
func refusalKind(msg string) string {
	_, msg, _ = strings.Cut(msg, ": ")
	if i := strings.Index(msg, ": "); i >= 0 {
		msg = msg[:i]
	}
	return msg
}

type oracle struct {
	t          testing.TB
	rand       *rand.Rand
	conn       *pgx.Conn
	rel        *pg.Relation
	rows       []pg.Row
	row        where.Row
	bothReject int
}

func newOracle(t testing.TB, r *rand.Rand) *oracle {
	t.Helper()
	ctx := context.Background()
	server, err := localpg.Start(ctx, localpg.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	o := &oracle{t: t, rand: r, conn: conn}
	o.exec("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, DMY'; SET extra_float_digits = 1")
	var defs []string
	o.rel = &pg.Relation{Schema: "public", Name: "wide", Columns: []pg.Column{{Name: "id", Type: 23, PK: 1}}}
	for _, c := range wideColumns {
		defs = append(defs, fmt.Sprintf("%s %s", c.name, c.sql))
		collation := "default"
		if strings.Contains(c.sql, `"C"`) || c.sql == "name" {
			collation = "C"
		}
		o.rel.Columns = append(o.rel.Columns, pg.Column{Name: c.name, Type: c.oid, Collation: collation})
	}
	o.exec("CREATE TABLE wide (id int primary key, " + strings.Join(defs, ", ") + ")")
	for id := range 300 {
		values := []string{strconv.Itoa(id)}
		for _, c := range wideColumns {
			v := "NULL"
			if r.IntN(8) > 0 {
				v = quote(pick(r, edges[c.family]))
			}
			values = append(values, v)
		}
		// A value that its column cannot hold is left out.
		_, _ = conn.PgConn().Exec(ctx, "INSERT INTO wide VALUES ("+strings.Join(values, ", ")+")").ReadAll()
	}
	res, err := conn.PgConn().Exec(ctx, "SELECT * FROM wide ORDER BY id").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range res[0].Rows {
		o.rows = append(o.rows, pg.Row(row).Clone())
	}
	if len(o.rows) < 50 {
		t.Fatalf("only %d rows", len(o.rows))
	}
	return o
}

func (o *oracle) exec(sql string) {
	o.t.Helper()
	if _, err := o.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		o.t.Fatal(err)
	}
}

// answers returns Postgres' answer for every row: t, f, null or fault. The error is one that has nothing to do with
// the rows.
func (o *oracle) answers(clause string, params []string) ([]string, error) {
	query := func(suffix string) (*pgconn.Result, error) {
		values := make([][]byte, len(params))
		for i, p := range params {
			values[i] = []byte(p)
		}
		res := o.conn.PgConn().ExecParams(context.Background(), "SELECT ("+clause+") FROM wide "+suffix, values, nil, nil,
			nil).Read()
		return res, res.Err
	}
	if _, err := query("WHERE id < 0"); err != nil {
		return nil, err
	}
	name := func(v []byte) string {
		if v == nil {
			return "null"
		}
		return map[string]string{"t": "true", "f": "false"}[string(v)]
	}
	var out []string
	res, err := query("ORDER BY id")
	if err == nil {
		for _, r := range res.Rows {
			out = append(out, name(r[0]))
		}
		return out, nil
	}
	for _, row := range o.rows {
		res, err := query("WHERE id = " + string(row[0]))
		var pgErr *pgconn.PgError
		switch {
		case errors.As(err, &pgErr):
			out = append(out, "fault")
		case err != nil:
			return nil, err
		default:
			out = append(out, name(res.Rows[0][0]))
		}
	}
	return out, nil
}

// check compares one clause. msg says what differs; why is our reason if we refused what Postgres accepts.
func (o *oracle) check(c clause, params []string) (msg, why string) {
	c.text, params = usedParams(c.text, params)
	e, refusal := where.Parse(c.text, o.rel, params)
	want, err := o.answers(c.text, params)
	switch {
	case refusal != nil && err != nil:
		o.bothReject++
		return "", ""
	case refusal != nil:
		return "", refusal.Error()
	case err != nil:
		return fmt.Sprintf("accepted, but Postgres says: %s", err), ""
	}
	sql := e.SQL()
	if sql == "" {
		sql = "true"
	}
	regenerated, err := o.answers(sql, nil)
	if err != nil {
		return fmt.Sprintf("SQL %s\nis refused: %s", sql, err), ""
	}
	for i, row := range o.rows {
		o.row.Reset(o.rel, row)
		got := e.Eval(&o.row).String()
		if got != want[i] || got != regenerated[i] {
			return fmt.Sprintf("SQL %s\nhere %s, Postgres %s, from the SQL %s\nrow%s", sql, got, want[i], regenerated[i],
				o.show(e, row)), ""
		}
	}
	return "", ""
}

var paramRef = regexp.MustCompile(`\$\d+`)

// usedParams renumbers the parameters of a part of a clause: Postgres takes just those that are used.
func usedParams(text string, params []string) (string, []string) {
	var used []string
	text = paramRef.ReplaceAllStringFunc(text, func(ref string) string {
		n, _ := strconv.Atoi(ref[1:])
		used = append(used, params[n-1])
		return fmt.Sprintf("$%d", len(used))
	})
	return text, used
}

// show prints the columns of a row that matter to e.
func (o *oracle) show(e *where.Expr, row pg.Row) string {
	s := ""
	for _, i := range e.Columns() {
		if row[i] == nil {
			s += fmt.Sprintf(" %s=NULL", o.rel.Columns[i].Name)
		} else {
			s += fmt.Sprintf(" %s=%q", o.rel.Columns[i].Name, row[i])
		}
	}
	return s
}

// shrink looks for the smallest part of a failing clause that fails.
func (o *oracle) shrink(c clause, params []string, msg string) string {
	for i := 0; i < len(c.parts); i++ {
		if m, _ := o.check(c.parts[i], params); m != "" {
			c, msg, i = c.parts[i], m, -1
		}
	}
	return fmt.Sprintf("%s  params %q\n%s", c.text, params, msg)
}

// TestConstantOracle compares how constants are read: what is accepted here, Postgres must read as the same value.
// The texts are edge values with a few characters changed.
func TestConstantOracle(t *testing.T) {
	if os.Getenv("SHAPELINE_TEST_E2E") != "1" {
		t.Skip("needs Postgres; make check runs it with SHAPELINE_TEST_E2E=1")
	}
	o := newOracle(t, rand.New(rand.NewPCG(2, 2)))
	const alphabet = "0123456789-+:. eEtTzZBCINfinatyaslurof{}_\t"
	accepted, refused := 0, map[datum.Type]int{}
	for typ := datum.Bool; typ <= datum.Timestamptz; typ++ {
		for i := range 1_200 {
			s := []byte(pick(o.rand, edges[map[bool]string{true: "text", false: typ.String()}[typ.IsText()]]))
			if typ == datum.Bool {
				s = []byte(pick(o.rand, []string{"true", "f", "on", "off", "yes", "no", "0", "1", "TRUE", "tru"}))
			}
			for range i % 4 {
				at, c := o.rand.IntN(len(s)+1), alphabet[o.rand.IntN(len(alphabet))]
				switch {
				case o.rand.IntN(3) == 0 || at == len(s):
					s = slices.Insert(s, at, c)
				case o.rand.IntN(2) == 0:
					s = slices.Delete(s, at, at+1)
				default:
					s[at] = c
				}
			}
			v, ours := datum.Parse(typ, string(s))
			printed := string(v.Append(nil, typ))
			res := o.conn.PgConn().ExecParams(t.Context(), fmt.Sprintf(
				"SELECT $1::text::%[1]s IS NOT DISTINCT FROM $2::text::%[1]s, $1::text::%[1]s", typ),
				[][]byte{s, []byte(printed)}, nil, nil, nil).Read()
			switch {
			case ours != nil && res.Err == nil:
				refused[typ]++
			case ours != nil:
			case res.Err != nil:
				t.Errorf("%s %q is accepted as %s; Postgres: %s", typ, s, printed, res.Err)
			case string(res.Rows[0][0]) != "t":
				t.Errorf("%s %q is read as %s, by Postgres as %s", typ, s, printed, res.Rows[0][1])
			default:
				accepted++
				var stored datum.Value
				stored.Read(typ, res.Rows[0][1])
				if stored.State != datum.OK || datum.Comparer(typ)(&stored, &v) != 0 {
					t.Errorf("%s %q: Postgres' own %q is read as %v, not %v", typ, s, res.Rows[0][1], stored, v)
				}
			}
		}
	}
	t.Logf("%d constants agree; refused although Postgres takes them: %v", accepted, refused)
}
