// Package oracle asks Postgres whether shapes are right. It owns the tables, the shapes and the seeded generator
// of transactions that the comparison runs on; the comparison itself is in its tests, which start a Postgres and
// the built binary and run with SHAPELINE_TEST_E2E=1 only. Starting processes and following a shape belong to
// tests/harness.
//
// The one idea: whatever the transactions did, a client's rows are what SELECT answers with the shape's own WHERE
// and columns, at every commit and not just at the end. The same seed makes the same transactions, so a failure is
// replayed by its seed.
package oracle

import (
	"slices"
	"strings"
)

// Table is one table that the transactions write.
type Table struct {
	Schema, Name string // unquoted
	Columns      []string
	Key          []string // the primary key in index order; nil for a table without one
	DDL          []string
}

// SQL names t in a statement.
func (t *Table) SQL() string { return quoteIdent(t.Schema) + "." + quoteIdent(t.Name) }

// KeyColumns returns the columns that identify a row to a client: the primary key or, without one, all columns.
func (t *Table) KeyColumns() []string {
	if t.Key == nil {
		return t.Columns
	}
	return t.Key
}

// RowKey makes the key that messages about a row carry (protocol reference, 5.2). values are those of KeyColumns,
// nil for NULL. It is written apart from the server's own function, so that the two check each other.
func (t *Table) RowKey(values []*string) string {
	var b strings.Builder
	escape := strings.NewReplacer(`"`, `""`, "/", "//")
	b.WriteString(`"` + escape.Replace(t.Schema) + `"."` + escape.Replace(t.Name) + `"`)
	for _, v := range values {
		if v == nil {
			b.WriteString("/_")
			continue
		}
		b.WriteString(`/"` + strings.ReplaceAll(*v, "/", "//") + `"`)
	}
	return b.String()
}

// Shape is one definition to follow.
type Shape struct {
	Name    string // for reports
	Table   *Table
	Where   string
	Params  []string
	Columns []string // nil for all
	Full    bool     // replica=full
}

// Selected returns the shape's columns, in the table's order.
func (s *Shape) Selected() []string {
	if s.Columns == nil {
		return s.Table.Columns
	}
	var cols []string
	for _, c := range s.Table.Columns {
		if slices.Contains(s.Columns, c) {
			cols = append(cols, c)
		}
	}
	return cols
}

// Query is the SELECT whose answer a client of s must hold, with the parameters written into the text. The key's
// columns that s does not select follow the selected ones.
func (s *Shape) Query() string {
	cols := s.Selected()
	for _, k := range s.Table.KeyColumns() {
		if !slices.Contains(cols, k) {
			cols = append(slices.Clone(cols), k)
		}
	}
	quoted := make([]string, len(cols))
	for i, c := range cols {
		quoted[i] = quoteIdent(c)
	}
	q := "SELECT " + strings.Join(quoted, ", ") + " FROM " + s.Table.SQL()
	if s.Where != "" {
		where := s.Where
		for i := len(s.Params) - 1; i >= 0; i-- {
			where = strings.ReplaceAll(where, "$"+string(rune('1'+i)), quoteText(s.Params[i]))
		}
		q += " WHERE " + where
	}
	return q
}

func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
