// Package grammar is Postgres' own SQL parser, libpg_query in WebAssembly: it makes a tree of the text of a condition,
// and says where and why there is none. What the tree means is for ingest/where to say; no other package knows the
// library.
//
// The one idea: nothing that arrives from outside can stop the parser. Its stack is fixed, so a scan, which does not
// recurse, first bounds how deep it will go.
package grammar

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	libpgquery "github.com/wasilibs/go-pgquery"
	"github.com/wasilibs/go-pgquery/parser"
)

// Prefix makes a statement of a condition. Locations in the tree and in syntax errors count it.
const Prefix = "SELECT 1 WHERE "

// The limits on a condition. Each keeps something that grows with the input from growing without bound.
const (
	textBytesMax = 65_536
	nestingMax   = 256 // operators and brackets inside one another; the parser's stack holds over 1,000

	// Shapes of one template differ in parameters alone, and come by the thousand: at a restart, all at once.
	cachedMax      = 256
	cachedBytesMax = 4096 // longer texts are not kept
)

// NoLocation is the location of an error that concerns the condition as a whole.
const NoLocation = -1

// Error says why a condition is refused, in words for its author. Location is the place that is at fault, in
// characters of the statement for syntax errors and in bytes of the condition for all others (protocol reference,
// 12.1), or negative.
type Error struct {
	Location int
	Msg      string
}

// Error prints e as clients see it: At location 17: syntax error at or near "x".
func (e *Error) Error() string {
	if e.Location < 0 {
		return e.Msg
	}
	return fmt.Sprintf("At location %d: %s", e.Location, e.Msg)
}

// machine is the parser. The library keeps a machine of some megabytes for every call that runs at the
// same time, and compiles it for seconds, so there is one call at a time.
var machine struct {
	mu     sync.Mutex
	broken error                    // once set, the machine is not to be trusted any more
	cached map[string]*pgquery.Node // trees by text; they are only read

	templates map[string]*template // by what scanConstants returns; nil where there is none
}

// Warm compiles the parser, which takes seconds, and returns when it can be used. Parse does the same when it is
// the first; a call during Warm waits for it.
func Warm() {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	_, _ = guarded(Prefix + "true")
}

// Like returns the tree of a condition as Parse does, but for its locations, which may be those of a condition that differs
// in its constants: whoever finds an error in it asks Parse. It is fast where many conditions are alike.
func Like(text string) (*pgquery.Node, error) {
	if len(text) > cachedBytesMax || !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		return Parse(text)
	}
	key, constants, ok := scanConstants(text)
	if !ok {
		return Parse(text)
	}
	machine.mu.Lock()
	t, known := machine.templates[key]
	machine.mu.Unlock()
	if t != nil {
		if tree := t.with(constants); tree != nil {
			return tree, nil
		}
	}
	tree, err := Parse(text)
	if err != nil || known {
		return tree, err
	}
	t = newTemplate(tree, constants)
	machine.mu.Lock()
	defer machine.mu.Unlock()
	if machine.templates == nil || len(machine.templates) >= templatesMax {
		machine.templates = make(map[string]*template)
	}
	machine.templates[key] = t
	return tree, nil
}

// Parse returns the tree of a condition, after the checks that concern the statement around it. An error is an
// *Error, unless the parser itself has broken down.
func Parse(text string) (*pgquery.Node, error) {
	if len(text) > textBytesMax {
		return nil, &Error{NoLocation, fmt.Sprintf("where clause is too long (max length is %d bytes)", textBytesMax)}
	}
	if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		return nil, &Error{NoLocation, "where clause must be UTF-8 text without null characters"}
	}
	machine.mu.Lock()
	defer machine.mu.Unlock()
	if tree := machine.cached[text]; tree != nil {
		return tree, nil
	}
	tree, err := condition(text)
	if err == nil && len(text) <= cachedBytesMax {
		if machine.cached == nil || len(machine.cached) >= cachedMax {
			machine.cached = make(map[string]*pgquery.Node, cachedMax)
		}
		machine.cached[strings.Clone(text)] = tree
	}
	return tree, err
}

// condition parses the statement that Prefix and text make, and returns its condition. The caller holds machine.mu.
func condition(text string) (*pgquery.Node, error) {
	result, err := guarded(Prefix + text)
	if err != nil {
		return nil, err
	}
	if len(result.Stmts) != 1 {
		return nil, &Error{NoLocation, `unescaped ";" causing statement split`}
	}
	s := result.Stmts[0].Stmt.GetSelectStmt()
	if s == nil || s.WhereClause == nil || s.Op != pgquery.SetOperation_SETOP_NONE || len(s.FromClause) > 0 ||
		len(s.GroupClause) > 0 || s.HavingClause != nil || len(s.WindowClause) > 0 || len(s.SortClause) > 0 ||
		s.LimitCount != nil || s.LimitOffset != nil || len(s.LockingClause) > 0 || s.WithClause != nil ||
		s.IntoClause != nil || len(s.ValuesLists) > 0 {
		return nil, &Error{NoLocation, "malformed query ending with SQL clauses"}
	}
	return s.WhereClause, nil
}

// guarded runs the parser on a statement. The scanner goes first: it does not recurse, and tells how deep the
// parser will, whose stack is fixed.
func guarded(statement string) (result *pgquery.ParseResult, err error) {
	if machine.broken != nil {
		return nil, machine.broken
	}
	defer func() {
		if p := recover(); p != nil {
			machine.broken = fmt.Errorf("the SQL parser stopped working and needs a restart of the process: %v", p)
			err = machine.broken
		}
	}()
	scan, err := libpgquery.Scan(statement)
	if err != nil {
		return nil, syntaxError(err)
	}
	if depth(scan.Tokens) > nestingMax {
		return nil, &Error{NoLocation, fmt.Sprintf("where clause is nested too deeply (max depth is %d)", nestingMax)}
	}
	if result, err = libpgquery.Parse(statement); err != nil {
		return nil, syntaxError(err)
	}
	return result, nil
}

func syntaxError(err error) error {
	var e *parser.Error
	if !errors.As(err, &e) {
		return &Error{NoLocation, err.Error()}
	}
	if e.Cursorpos <= 0 {
		return &Error{NoLocation, e.Message}
	}
	return &Error{e.Cursorpos - 1, strings.ToValidUTF8(e.Message, "\uFFFD")}
}

// depth bounds the depth of the tree that tokens can make: brackets open at once, and everything but names,
// constants and what makes flat lists.
func depth(tokens []*pgquery.ScanToken) int {
	open := []int{0} // for each open bracket, what counts since its last separator
	deepest, sum := 0, 0
	for _, t := range tokens {
		switch t.Token {
		case pgquery.Token_ASCII_40, pgquery.Token_ASCII_91: // ( [
			open = append(open, 1)
			sum++
		case pgquery.Token_ASCII_41, pgquery.Token_ASCII_93: // ) ]
			sum -= open[len(open)-1]
			if open = open[:len(open)-1]; len(open) == 0 {
				open = append(open, 0)
			}
		case pgquery.Token_AND, pgquery.Token_OR, pgquery.Token_ASCII_44, pgquery.Token_ASCII_59: // , ;
			last := &open[len(open)-1]
			keep := min(*last, 1)
			sum -= *last - keep
			*last = keep
		case pgquery.Token_IDENT, pgquery.Token_UIDENT, pgquery.Token_ICONST, pgquery.Token_FCONST,
			pgquery.Token_SCONST, pgquery.Token_USCONST, pgquery.Token_PARAM, pgquery.Token_SQL_COMMENT,
			pgquery.Token_C_COMMENT:
		default:
			open[len(open)-1]++
			sum++
		}
		deepest = max(deepest, sum)
	}
	return deepest
}
