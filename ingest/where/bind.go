package where

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/shapeline/shapeline/ingest/where/datum"
	"github.com/shapeline/shapeline/ingest/where/grammar"
	"github.com/shapeline/shapeline/internal/pg"
)

// binder makes the typed tree: it resolves names, gives types to constants and parameters, chooses operators as
// Postgres does, and folds what is constant.
type binder struct {
	rel        *pg.Relation
	params     []string
	paramTypes map[int]paramType // of the parameters whose type is known by now
}

type paramType struct {
	typ   datum.Type
	array bool
}

func (p paramType) String() string {
	if p.array {
		return p.typ.String() + "[]"
	}
	return p.typ.String()
}

// fail returns an error at a location of the statement.
func fail(loc int32, format string, args ...any) error { return failAt(place(loc), format, args...) }

func failAt(loc int, format string, args ...any) error {
	return &Error{Location: loc, Msg: fmt.Sprintf(format, args...)}
}

// place turns a location in the statement into one in the clause.
func place(loc int32) int { return max(int(loc)-len(grammar.Prefix), 0) }

// root binds the whole condition.
func (b *binder) root(tree *pgquery.Node) (*node, error) {
	n, err := b.known(tree, datum.Bool)
	if err != nil {
		return nil, err
	}
	if n.typ != datum.Bool {
		return nil, &Error{Location: grammar.NoLocation, Msg: "WHERE clause must return a boolean"}
	}
	return n, nil
}

func (b *binder) expr(tree *pgquery.Node) (*node, error) {
	switch t := tree.GetNode().(type) {
	case *pgquery.Node_AConst:
		return b.constant(t.AConst)
	case *pgquery.Node_ColumnRef:
		return b.column(t.ColumnRef)
	case *pgquery.Node_ParamRef:
		return b.param(t.ParamRef)
	case *pgquery.Node_TypeCast:
		return b.explicitCast(t.TypeCast)
	case *pgquery.Node_BoolExpr:
		return b.logic(t.BoolExpr)
	case *pgquery.Node_NullTest:
		return b.nullTest(t.NullTest)
	case *pgquery.Node_BooleanTest:
		return b.truthTest(t.BooleanTest)
	case *pgquery.Node_AExpr:
		return b.operator(t.AExpr)
	case *pgquery.Node_FuncCall:
		return nil, refuseCall(t.FuncCall)
	}
	return nil, refuseNode(tree)
}

// refuseNode names the kind of a node that the language does not have.
func refuseNode(tree *pgquery.Node) error {
	name, loc := "expression", int32(0)
	if v := reflect.ValueOf(tree.GetNode()); v.IsValid() {
		inner := v.Elem().Field(0) // the one field of a oneof's wrapper
		name = inner.Elem().Type().Name()
		if l, ok := inner.Interface().(interface{ GetLocation() int32 }); ok {
			loc = l.GetLocation()
		}
	}
	if name == "A_ArrayExpr" {
		return fail(loc, "an array is only supported as the argument of ANY or ALL")
	}
	return fail(loc, "%s is not supported in this context", name)
}

func refuseCall(c *pgquery.FuncCall) error {
	switch {
	case len(c.AggOrder) > 0 || c.AggFilter != nil || c.Over != nil || c.AggWithinGroup || c.AggStar || c.AggDistinct:
		return fail(c.Location, "aggregation is not supported in this context")
	case c.FuncVariadic:
		return fail(c.Location, "explicit VARIADIC function calls are not currently supported")
	}
	return fail(c.Location, "unknown or unsupported function %s/%d", identifier(c.Funcname), len(c.Args))
}

// identifier prints a name as SQL writes it, without the catalogue's own schema.
func identifier(names []*pgquery.Node) string {
	var parts []string
	for i, n := range names {
		s := n.GetString_().GetSval()
		if n.GetAStar() != nil {
			s = "*"
		}
		if i == 0 && len(names) > 1 && s == "pg_catalog" {
			continue
		}
		if s == "" || isLetter(s[0]) && !isWord(s) {
			s = quoteIdent(s)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ".")
}

func isLetter(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c >= 0x80
}

func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	})
}

func (b *binder) constant(c *pgquery.A_Const) (*node, error) {
	loc := place(c.Location)
	n := &node{kind: kindConst, size: 1, loc: loc}
	if c.Isnull {
		n.typ, n.value.State = datum.Unknown, datum.Null
		return n, nil
	}
	switch v := c.Val.(type) {
	case *pgquery.A_Const_Ival:
		n.typ, n.value.I = datum.Int4, int64(v.Ival.GetIval())
	case *pgquery.A_Const_Fval:
		return numberConst(v.Fval.GetFval(), loc)
	case *pgquery.A_Const_Boolval:
		return boolConst(truthOf(v.Boolval.GetBoolval()), loc), nil
	case *pgquery.A_Const_Sval:
		n.typ, n.value.B = datum.Unknown, []byte(v.Sval.GetSval())
	default:
		return nil, failAt(loc, "BitString values are not supported")
	}
	return n, nil
}

func truthOf(b bool) Truth {
	if b {
		return True
	}
	return False
}

// numberConst makes a constant of a number with a point or an exponent, or of one too large for the grammar's
// integers: int4 or int8 where it fits, else numeric.
func numberConst(s string, loc int) (*node, error) {
	t := datum.Numeric
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		if t = datum.Int8; i == int64(int32(i)) {
			t = datum.Int4
		}
	}
	v, err := datum.Parse(t, s)
	if err != nil {
		return nil, failAt(loc, "%s", err)
	}
	return &node{kind: kindConst, typ: t, value: v, size: 1, loc: loc}, nil
}

func (b *binder) column(c *pgquery.ColumnRef) (*node, error) {
	i := -1
	if len(c.Fields) == 1 && c.Fields[0].GetString_() != nil {
		i = b.rel.Index(c.Fields[0].GetString_().GetSval())
	}
	if i < 0 {
		return nil, fail(c.Location, "unknown reference %s", identifier(c.Fields))
	}
	col := &b.rel.Columns[i]
	n := &node{kind: kindColumn, typ: datum.TypeOf(col.Type), column: i, name: col.Name, size: 1, loc: place(c.Location)}
	if n.typ.IsText() {
		switch col.Collation {
		case "", "default":
			if n.typ == datum.Name {
				n.collation = "C"
			}
		default:
			n.collation = col.Collation
		}
	}
	return n, nil
}

// param binds a parameter; it has a type if an earlier use has found one.
func (b *binder) param(p *pgquery.ParamRef) (*node, error) {
	n, err := b.rawParam(p)
	if err != nil {
		return nil, err
	}
	return b.settle(n)
}

// settle gives a parameter without a type the one that a use has found in the meantime.
func (b *binder) settle(n *node) (*node, error) {
	t, known := b.paramTypes[n.param]
	switch {
	case n.typ != datum.Unknown || n.param == 0 || !known:
		return n, nil
	case t.array:
		return nil, failAt(n.loc, "type conflict for $%d: %s and %s", n.param, n.typ, t)
	}
	return b.coerce(n, t.typ)
}

// rawParam binds a parameter as a constant of unknown type.
func (b *binder) rawParam(p *pgquery.ParamRef) (*node, error) {
	i := int(p.Number)
	if i < 1 || i > len(b.params) {
		return nil, fail(p.Location, "parameter $%d was not provided", i)
	}
	n := &node{kind: kindConst, typ: datum.Unknown, param: i, size: 1, loc: place(p.Location)}
	n.value.B = []byte(b.params[i-1])
	return n, nil
}

// known binds a tree and gives it the type t if its own is unknown.
func (b *binder) known(tree *pgquery.Node, t datum.Type) (*node, error) {
	n, err := b.expr(tree)
	if err != nil || n.typ != datum.Unknown {
		return n, err
	}
	return b.coerce(n, t)
}

func (b *binder) logic(e *pgquery.BoolExpr) (*node, error) {
	loc := place(e.Location)
	args := make([]*node, len(e.Args))
	for i, a := range e.Args {
		n, err := b.known(a, datum.Bool)
		switch {
		case err != nil:
			return nil, err
		case n.typ != datum.Bool && n.kind == kindColumn:
			return nil, failAt(n.loc, "reference %s of type %s is not castable to bool", n.name, b.typeName(n))
		case n.typ != datum.Bool:
			return nil, failAt(n.loc, "expression of type %s is not castable to bool", n.typ)
		}
		args[i] = n
	}
	switch e.Boolop {
	case pgquery.BoolExprType_AND_EXPR:
		return b.junction(kindAnd, args, loc)
	case pgquery.BoolExprType_OR_EXPR:
		return b.junction(kindOr, args, loc)
	}
	return b.make(&node{kind: kindNot, typ: datum.Bool, args: args, loc: loc})
}

// typeName names the type of n; the catalogue's name for columns of types that have no values here.
func (b *binder) typeName(n *node) string {
	if n.kind == kindColumn && n.typ == datum.Other {
		c := &b.rel.Columns[n.column]
		for _, name := range []string{c.TypeSQL, c.TypeName} {
			if name != "" {
				return name
			}
		}
	}
	return n.typ.String()
}

func (b *binder) nullTest(t *pgquery.NullTest) (*node, error) {
	arg, err := b.expr(t.Arg)
	if err != nil {
		return nil, err
	}
	return b.isNull(arg, t.Nulltesttype == pgquery.NullTestType_IS_NOT_NULL, place(t.Location))
}

func (b *binder) isNull(arg *node, not bool, loc int) (*node, error) {
	return b.make(&node{kind: kindNull, typ: datum.Bool, not: not, args: []*node{arg}, loc: loc})
}

func (b *binder) truthTest(t *pgquery.BooleanTest) (*node, error) {
	n := &node{kind: kindTest, typ: datum.Bool, loc: place(t.Location)}
	name := ""
	switch t.Booltesttype {
	case pgquery.BoolTestType_IS_TRUE:
		n.test, name = True, "IS TRUE"
	case pgquery.BoolTestType_IS_NOT_TRUE:
		n.test, n.not, name = True, true, "IS NOT TRUE"
	case pgquery.BoolTestType_IS_FALSE:
		n.test, name = False, "IS FALSE"
	case pgquery.BoolTestType_IS_NOT_FALSE:
		n.test, n.not, name = False, true, "IS NOT FALSE"
	case pgquery.BoolTestType_IS_UNKNOWN:
		n.test, name = Null, "IS UNKNOWN"
	default:
		n.test, n.not, name = Null, true, "IS NOT UNKNOWN"
	}
	arg, err := b.known(t.Arg, datum.Bool)
	if err != nil {
		return nil, err
	}
	if arg.typ != datum.Bool {
		return nil, failAt(n.loc, "argument of %s must be bool, not %s", name, b.typeName(arg))
	}
	n.args = []*node{arg}
	return b.make(n)
}

// junction makes an AND or OR without the constants that do not matter, and the constant that decides it if there
// is one.
func (b *binder) junction(k kind, args []*node, loc int) (*node, error) {
	neutral, decisive := True, False
	if k == kindOr {
		neutral, decisive = decisive, neutral
	}
	var kept []*node
	for _, a := range args {
		if a.kind == kindConst && a.truth() == decisive {
			return a, nil
		}
		if a.kind != kindConst || a.truth() != neutral {
			kept = append(kept, a)
		}
	}
	switch len(kept) {
	case 0:
		return boolConst(neutral, loc), nil
	case 1:
		return kept[0], nil
	}
	return b.make(&node{kind: k, typ: datum.Bool, args: kept, loc: loc})
}

// make finishes a new node: it bounds the size of the tree and replaces a node without columns by its value.
func (b *binder) make(n *node) (*node, error) {
	n.size = 1
	if n.kind == kindArith && n.typ == datum.Numeric && (n.op == "*" || n.op == "/") {
		n.products = 1
	}
	constant := true
	for _, a := range n.args {
		n.size += a.size
		n.products += a.products
		constant = constant && a.kind == kindConst
		if n.collation == "" {
			n.collation = a.collation
		}
	}
	if n.size > nodesMax {
		return nil, failAt(n.loc, "where clause is too large (max size is %d operators and operands)", nodesMax)
	}
	if n.products > productsMax {
		return nil, failAt(n.loc, "too many multiplications and divisions of numeric (max is %d)", productsMax)
	}
	if n.kind == kindCompare || n.kind == kindArith {
		for _, a := range n.args {
			if a.isNull() {
				return &node{kind: kindConst, typ: n.typ, value: a.value, size: 1, loc: n.loc}, nil
			}
		}
	}
	if n.kind == kindAnd || n.kind == kindOr || n.kind == kindColumnText || !constant {
		return n, nil
	}
	var c compiler
	var row Row
	value := c.value(n)
	row.need(c.slots)
	v := *value(&row)
	if v.State == datum.Bad {
		return nil, failAt(n.loc, "Failed to apply function to constant arguments")
	}
	return &node{kind: kindConst, typ: n.typ, value: v, size: 1, loc: n.loc}, nil
}
