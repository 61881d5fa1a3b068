package oracle

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/tests/harness"
)

// ClientSettings make Postgres print values as clients see them (protocol reference, 6.1).
const ClientSettings = `SET bytea_output = 'hex'; SET DateStyle = 'ISO, DMY'; SET TimeZone = 'UTC';
	SET extra_float_digits = 1; SET IntervalStyle = 'iso_8601'`

// RequestParams are the parameters of a request for s.
func (s *Shape) RequestParams() url.Values {
	p := url.Values{"table": {s.Table.SQL()}}
	if s.Where != "" {
		p.Set("where", s.Where)
	}
	for i, v := range s.Params {
		p.Set(fmt.Sprintf("params[%d]", i+1), v)
	}
	var cols []string
	for _, c := range s.Columns {
		cols = append(cols, quoteIdent(c))
	}
	if cols != nil {
		p.Set("columns", strings.Join(cols, ","))
	}
	if s.Full {
		p.Set("replica", "full")
	}
	return p
}

// State is what a client of one shape must hold at one moment.
type State struct {
	Rows map[string]harness.Row // by the key that messages carry
	Sum  uint64                 // harness.Sum of Rows
}

// States asks Postgres for the states of shapes, all in one snapshot. conn must have ClientSettings.
func States(ctx context.Context, conn *pgx.Conn, shapes []*Shape) ([]State, error) {
	queries := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}
	for _, s := range shapes {
		queries = append(queries, s.Query())
	}
	results, err := conn.PgConn().Exec(ctx, strings.Join(append(queries, "COMMIT"), ";\n")).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ask for the states: %w", err)
	}
	all := make([]State, len(shapes))
	for i, s := range shapes {
		all[i] = s.readState(results[i+1].Rows)
	}
	return all, nil
}

func (s *Shape) readState(rows [][][]byte) State {
	st := State{Rows: make(map[string]harness.Row, len(rows))}
	selected := s.Selected()
	columns := selected
	for _, k := range s.Table.KeyColumns() {
		if !slices.Contains(columns, k) {
			columns = append(slices.Clone(columns), k)
		}
	}
	for _, values := range rows {
		row, key := harness.Row{}, []*string{}
		for i := range selected {
			row[columns[i]] = text(values[i])
		}
		for _, k := range s.Table.KeyColumns() {
			key = append(key, text(values[slices.Index(columns, k)]))
		}
		st.Rows[s.Table.RowKey(key)] = row
		st.Sum += row.Sum()
	}
	return st
}

func text(v []byte) *string {
	if v == nil {
		return nil
	}
	s := string(v)
	return &s
}

// Differences lists what got has otherwise than want, a few rows of it.
func Differences(got, want map[string]harness.Row) string {
	var lines []string
	for key, row := range want {
		if g, ok := got[key]; !ok {
			lines = append(lines, fmt.Sprintf("missing %s: %s", key, Short(row.String())))
		} else if g.String() != row.String() {
			lines = append(lines, fmt.Sprintf("differs %s:\n    got  %s\n    want %s",
				key, Short(g.String()), Short(row.String())))
		}
	}
	for key, row := range got {
		if _, ok := want[key]; !ok {
			lines = append(lines, fmt.Sprintf("extra %s: %s", key, Short(row.String())))
		}
	}
	slices.Sort(lines)
	more := ""
	if len(lines) > 5 {
		more = fmt.Sprintf("\n  and %d more", len(lines)-5)
		lines = lines[:5]
	}
	return fmt.Sprintf("got %d rows, want %d\n  %s%s", len(got), len(want), strings.Join(lines, "\n  "), more)
}

// Short leaves out the middle of a long text.
func Short(s string) string {
	if len(s) > 700 {
		return s[:400] + " ... " + s[len(s)-200:]
	}
	return s
}
