// Package where is the language of shape conditions: it parses a WHERE clause, gives it types, and evaluates it on
// rows as Postgres would. It owns the grammar's limits, the choice of operators, three-valued logic and the SQL that
// a snapshot runs; the values themselves are ingest/where/datum's, and which shapes a row touches is ingest/match's.
//
// The one idea: the clause that was given is used once. What runs here and what runs in Postgres are both made from
// the typed tree, with every parameter, default and conversion written out, so that they cannot disagree. What
// cannot be proved to have Postgres' own answer for every value is refused when it is parsed.
//
// One answer is defined here instead of by the database: < and its kin on text compare bytes, and ILIKE folds ASCII
// letters only; the SQL says COLLATE "C" there. Values are UTF-8 text as Postgres prints it with DateStyle ISO and
// TimeZone UTC.
package where

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/shapeline/shapeline/ingest/where/grammar"
	"github.com/shapeline/shapeline/internal/pg"
)

// The limits on what one evaluation can cost, whatever the clause. BETWEEN repeats its operands, which count each time.
const (
	nodesMax        = 50_000 // of the typed tree
	productsMax     = 64     // multiplications and divisions of numeric: each adds the digits of its operands
	patternBytesMax = 1_000  // of a LIKE pattern: matching can take the product of the lengths
)

// Error says why a clause is refused, and where; clients see its text.
type Error = grammar.Error

// Warm compiles the parser, which takes seconds, and returns when it can be used. Parse does the same when it is
// the first; a call during Warm waits for it.
func Warm() { grammar.Warm() }

// Truth is the outcome of a condition on a row. Only True puts the row into the shape.
type Truth uint8

// The outcomes. Fault is where Postgres would raise an error, such as a division by zero.
const (
	False Truth = iota
	True
	Null
	Fault
)

// String returns the outcome's name in lower case.
func (t Truth) String() string { return [...]string{"false", "true", "null", "fault"}[t] }

// Expr is a parsed condition over the columns of one relation. It does not change, and any number of goroutines may
// use it, each with a Row of its own.
type Expr struct {
	sql      string
	columns  []int
	eval     truthFunc
	slots    int // scratch values that eval needs
	constant bool
	access   *Access
	residual *Expr
}

// Parse reads a WHERE clause over rel, whose parameters $1, $2, ... have the given values. The empty clause, and
// every other that is always true, is "everything". An error is an *Error,
// unless the parser itself has broken down.
//
// The first call of the process compiles the parser, which takes seconds; see Warm.
func Parse(text string, rel *pg.Relation, params []string) (*Expr, error) {
	if strings.TrimSpace(text) == "" {
		return finish(boolConst(True, 0), true), nil
	}
	var refused error
	for _, parse := range []func(string) (*pgquery.Node, error){grammar.Like, grammar.Parse} {
		tree, err := parse(text)
		if err != nil {
			return nil, err
		}
		b := &binder{rel: rel, params: params, paramTypes: map[int]paramType{}}
		root, err := b.root(tree)
		if err == nil {
			return finish(root, true), nil
		}
		refused = err
	}
	return nil, refused // by the exact tree, so that the location is right
}

// finish makes the expression of a typed tree, split into access and residual if that is wanted.
func finish(root *node, split bool) *Expr {
	e := &Expr{sql: root.sql(), constant: root.kind == kindConst}
	if e.constant && root.truth() == True {
		e.sql = ""
	}
	root.walk(func(n *node) {
		if (n.kind == kindColumn || n.kind == kindColumnText) && !slices.Contains(e.columns, n.column) {
			e.columns = append(e.columns, n.column)
		}
	})
	slices.Sort(e.columns)
	var c compiler
	e.eval = c.truth(root)
	e.slots = c.slots
	if !split {
		return e
	}
	if access, rest := findAccess(root); access != nil {
		e.access = access
		if rest != nil {
			e.residual = finish(rest, false)
		}
	}
	return e
}

// SQL returns the condition as SQL for Postgres, with the parameters as typed constants; "" for everything. It is
// safe to put between parentheses behind WHERE, in a query over the one relation and a session with
// DateStyle ISO and TimeZone UTC.
func (e *Expr) SQL() string { return e.sql }

// Canonical returns a text that is equal for two clauses over the same relation only if they mean the same, and that
// does not depend on white space, case or whether a constant came as a parameter.
func (e *Expr) Canonical() string { return e.sql }

// Columns returns the columns that the condition depends on, ascending. The slice is e's own.
func (e *Expr) Columns() []int { return e.columns }

// Everything reports whether the condition is true for every row.
func (e *Expr) Everything() bool { return e.sql == "" }

// Nothing reports whether the condition is known to be true for no row.
func (e *Expr) Nothing() bool { return e.constant && e.sql != "" }

// Eval returns the outcome on the row that r shows.
func (e *Expr) Eval(r *Row) Truth {
	r.need(e.slots)
	return e.eval(r)
}

// Access returns the part of the condition that an index can look up, if there is one: the condition is true just
// when the column's key is one of the keys and Residual is true.
func (e *Expr) Access() (Access, bool) {
	if e.access == nil {
		return Access{}, false
	}
	return *e.access, true
}

// Residual returns what remains of the condition beside Access, or nil if nothing does.
func (e *Expr) Residual() *Expr { return e.residual }
