package where

import (
	"strings"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

type kind uint8

const (
	kindConst      kind = iota
	kindColumn          // column
	kindCompare         // args[0] op args[1], compared as class
	kindDistinct        // args[0] IS DISTINCT FROM args[1], compared as class; not: IS NOT DISTINCT FROM
	kindAny             // args[0] op ANY (elems), compared as class; not: ALL
	kindArith           // args[0] op args[1]
	kindNegate          // - args[0]
	kindCast            // args[0]::typ
	kindDate            // args[0], a date, where it is compared with a timestamp
	kindColumnText      // the text form of column
	kindLike            // args[0] LIKE pattern; not: NOT LIKE
	kindAnd             // all of args
	kindOr              // one of args
	kindNot             // NOT args[0]
	kindNull            // args[0] IS NULL; not: IS NOT NULL
	kindTest            // args[0] IS <truth>; not: IS NOT <truth>
)

// node is one node of the typed tree. Nodes are not changed once they are made, and may be shared.
type node struct {
	kind  kind
	typ   datum.Type // of the result; a constant is Unknown until its context says what it is
	class datum.Type // as what operands are compared
	op    string
	not   bool
	args  []*node
	size  int // nodes of the tree below, shared ones counted each time

	products int // multiplications and divisions of numeric among them

	value    datum.Value   // of a constant; of Unknown ones B is the text
	elems    []datum.Value // of kindAny
	elemType datum.Type    // of elems
	column   int           // of kindColumn and kindColumnText
	name     string        // of the column
	test     Truth         // of kindTest
	text     string        // of kindLike: the pattern
	like     *datum.Pattern
	param    int // the number of the parameter that a constant came from, or 0
	loc      int // in the clause

	// collation is the one that Postgres derives for a text: "" where there is only the default.
	collation string
}

func boolConst(t Truth, loc int) *node {
	n := &node{kind: kindConst, typ: datum.Bool, size: 1, loc: loc}
	n.value = truthValue(t)
	return n
}

func truthValue(t Truth) datum.Value {
	switch t {
	case True:
		return datum.Value{I: 1}
	case False:
		return datum.Value{}
	case Null:
		return datum.Value{State: datum.Null}
	}
	return badValue
}

// truth returns the value of a boolean constant.
func (n *node) truth() Truth { return valueTruth(&n.value) }

func valueTruth(v *datum.Value) Truth {
	switch {
	case v.State == datum.Bad:
		return Fault
	case v.State == datum.Null:
		return Null
	case v.I != 0:
		return True
	}
	return False
}

// isNull reports whether n is a NULL, of a type or not yet of one.
func (n *node) isNull() bool { return n.kind == kindConst && n.value.State == datum.Null }

// walk calls f for n and everything below it, shared nodes as often as they are referred to.
func (n *node) walk(f func(*node)) {
	f(n)
	for _, a := range n.args {
		a.walk(f)
	}
}

// sql prints n. What is written is exactly what the tree says: each constant with its type, each conversion, and
// parentheses around everything that has parts.
func (n *node) sql() string {
	var b strings.Builder
	n.print(&b)
	return b.String()
}

func (n *node) print(b *strings.Builder) {
	switch n.kind {
	case kindConst:
		printConst(b, &n.value, n.typ)
	case kindColumn, kindColumnText:
		b.WriteString(quoteIdent(n.name))
		if n.kind == kindColumnText {
			b.WriteString("::" + n.typ.String())
		}
	case kindDate:
		n.args[0].print(b)
	case kindNegate:
		parenthesised(b, "- ", n.args[0], "")
	case kindCast:
		parenthesised(b, "", n.args[0], "::"+n.typ.String())
	case kindNot:
		parenthesised(b, "NOT ", n.args[0], "")
	case kindNull:
		is, isNot := " IS NULL", " IS NOT NULL"
		if n.args[0].typ == datum.Other {
			// A composite value with no fields set IS NULL in Postgres; here, and for this form, it is not.
			is, isNot = " IS NOT DISTINCT FROM NULL", " IS DISTINCT FROM NULL"
		}
		if n.not {
			is = isNot
		}
		parenthesised(b, "", n.args[0], is)
	case kindTest:
		is := " IS "
		if n.not {
			is = " IS NOT "
		}
		parenthesised(b, "", n.args[0], is+[...]string{"FALSE", "TRUE", "UNKNOWN"}[n.test])
	case kindAnd:
		n.printJoined(b, " AND ")
	case kindOr:
		n.printJoined(b, " OR ")
	case kindAny:
		n.printAny(b)
	case kindLike:
		b.WriteByte('(')
		n.args[0].print(b)
		if strings.HasSuffix(n.op, "ILIKE") && !bytewise(n.args[0].collation) {
			b.WriteString(` COLLATE "C"`)
		}
		b.WriteString(" " + n.op + " ")
		quoteLiteral(b, n.text)
		b.WriteString("::text)")
	case kindDistinct:
		op := " IS DISTINCT FROM "
		if n.not {
			op = " IS NOT DISTINCT FROM "
		}
		n.printJoined(b, op)
	default:
		b.WriteByte('(')
		n.args[0].print(b)
		n.printCollation(b)
		b.WriteString(" " + n.op + " ")
		n.args[1].print(b)
		b.WriteByte(')')
	}
}

func parenthesised(b *strings.Builder, before string, n *node, after string) {
	b.WriteString("(" + before)
	n.print(b)
	b.WriteString(after + ")")
}

func (n *node) printJoined(b *strings.Builder, separator string) {
	b.WriteByte('(')
	for i, a := range n.args {
		if i > 0 {
			b.WriteString(separator)
		}
		a.print(b)
	}
	b.WriteByte(')')
}

func (n *node) printAny(b *strings.Builder) {
	b.WriteByte('(')
	n.args[0].print(b)
	n.printCollation(b)
	b.WriteString(" " + n.op)
	if n.not {
		b.WriteString(" ALL (ARRAY[")
	} else {
		b.WriteString(" ANY (ARRAY[")
	}
	for i := range n.elems {
		if i > 0 {
			b.WriteString(", ")
		}
		printConst(b, &n.elems[i], n.elemType)
	}
	b.WriteString("]::" + n.elemType.String() + "[]))")
}

// printCollation makes an ordering of texts the one of bytes, unless it is already.
func (n *node) printCollation(b *strings.Builder) {
	if n.kind == kindArith || n.class != datum.Text && n.class != datum.Bpchar || n.op == "=" || n.op == "<>" {
		return
	}
	for _, a := range n.args {
		if a.kind != kindConst && !bytewise(a.collation) {
			b.WriteString(` COLLATE "C"`)
			return
		}
	}
}

// bytewise reports whether a collation orders by bytes.
func bytewise(collation string) bool { return collation == "C" || collation == "POSIX" }

func printConst(b *strings.Builder, v *datum.Value, t datum.Type) {
	switch {
	case v.State != datum.OK:
		b.WriteString("NULL")
	case t == datum.Bool:
		b.Write(v.Append(nil, t))
		return
	default:
		quoteLiteral(b, string(v.Append(nil, t)))
	}
	b.WriteString("::" + t.String())
}

// quoteLiteral writes s so that it is one literal whatever standard_conforming_strings says.
func quoteLiteral(b *strings.Builder, s string) {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		s = strings.ReplaceAll(s, `\`, `\\`)
		b.WriteByte('E')
	}
	b.WriteString("'" + s + "'")
}

func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
