package where

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

// in binds [NOT] IN. As in Postgres, two or more elements without columns are brought to one type and looked up
// together first, if they have such a type with the left side; every other element is compared on its own, in order.
func (b *binder) in(left *node, tree *pgquery.Node, not bool, loc int) (*node, error) {
	var all, together, apart []*node
	for _, item := range tree.GetList().GetItems() {
		n, err := b.expr(item)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if n.kind == kindConst {
			together = append(together, n)
		} else {
			apart = append(apart, n)
		}
	}
	op, junction := "=", kindOr
	if not {
		op, junction = "<>", kindAnd
	}
	var parts []*node
	if len(together) > 1 {
		if t, _, ok := datum.Common(types(append([]*node{left}, together...))); ok {
			n, err := b.lookUp(&node{kind: kindAny, op: op, not: not, loc: loc}, left, together, t)
			if err != nil {
				return nil, err
			}
			parts, all = append(parts, n), apart
			if left, err = b.settle(left); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range all {
		part, err := b.binary(op, left, n, loc)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return b.junction(junction, parts, loc)
}

// lookUp completes n, a kindAny, with constants that are to be of type t.
func (b *binder) lookUp(n *node, left *node, elems []*node, t datum.Type) (*node, error) {
	var err error
	typed := make([]*node, len(elems))
	for i, e := range elems {
		if typed[i], err = b.convert(e, t); err != nil {
			return nil, err
		}
	}
	// The operator is chosen by the left side and the elements' type.
	model := &node{kind: kindConst, typ: t, size: 1, loc: n.loc}
	model.value.State = datum.Null
	left, met, class, err := b.operands(left, model, n.loc)
	if err != nil {
		return nil, err
	}
	n.typ, n.class, n.args = datum.Bool, class, []*node{left}
	n.elemType = met.typ
	for _, e := range typed {
		if e, err = b.convert(e, met.typ); err != nil {
			return nil, err
		}
		n.elems = append(n.elems, e.value)
	}
	if err := b.checkCollation(n); err != nil {
		return nil, err
	}
	return b.make(n)
}

// anyAll binds op ANY (array) and op ALL (array).
func (b *binder) anyAll(op string, left *node, tree *pgquery.Node, all bool, loc int) (*node, error) {
	elems, t, err := b.array(tree, left, op, loc)
	if err != nil {
		return nil, err
	}
	constant := true
	for _, e := range elems {
		constant = constant && e.kind == kindConst
		if e.kind != kindConst && e.kind != kindColumn {
			return nil, failAt(e.loc, "the elements of an array must be constants or columns")
		}
	}
	if constant && outcomes(op) != [3]Truth{} {
		return b.lookUp(&node{kind: kindAny, op: op, not: all, loc: loc}, left, elems, t)
	}
	if len(elems) == 0 && left.typ == datum.Other {
		return nil, b.overload(left, left, loc)
	}
	parts := make([]*node, len(elems))
	for i, e := range elems {
		if e, err = b.convert(e, t); err == nil {
			parts[i], err = b.binary(op, left, e, loc)
		}
		if err != nil {
			return nil, err
		}
		if parts[i].typ != datum.Bool {
			return nil, failAt(loc, "ANY/ALL requires operator that returns bool")
		}
	}
	if all {
		return b.junction(kindAnd, parts, loc)
	}
	return b.junction(kindOr, parts, loc)
}

// array binds the argument of ANY or ALL: its elements, and the type to which they are to be brought.
func (b *binder) array(tree *pgquery.Node, left *node, op string, loc int) ([]*node, datum.Type, error) {
	t := elementType(left, op)
	switch a := tree.GetNode().(type) {
	case *pgquery.Node_AArrayExpr:
		return b.arrayList(a.AArrayExpr, 0)
	case *pgquery.Node_TypeCast:
		to, array, err := castTarget(a.TypeCast.TypeName)
		if err != nil {
			return nil, 0, err
		}
		if !array {
			return nil, 0, fail(a.TypeCast.Location, "argument of ANY must be an array")
		}
		if list := a.TypeCast.Arg.GetAArrayExpr(); list != nil {
			return b.arrayList(list, to)
		}
		t, tree = to, a.TypeCast.Arg
	}
	bind := b.expr
	if p := tree.GetParamRef(); p != nil {
		bind = func(*pgquery.Node) (*node, error) { return b.rawParam(p) }
	}
	n, err := bind(tree)
	if err != nil {
		return nil, 0, err
	}
	if n.typ != datum.Unknown || n.isNull() {
		return nil, 0, failAt(n.loc, "argument of ANY must be an array")
	}
	if n.param > 0 {
		if err := b.setParam(n, paramType{t, true}); err != nil {
			return nil, 0, err
		}
	}
	texts, ok := datum.ParseArray(string(n.value.B))
	if !ok {
		return nil, 0, failAt(n.loc, "invalid syntax for type %s[]: %s", t, n.value.B)
	}
	elems := make([]*node, len(texts))
	for i, text := range texts {
		e := &node{kind: kindConst, typ: datum.Unknown, size: 1, loc: n.loc}
		if text == nil {
			e.value.State = datum.Null
		} else {
			e.value.B = []byte(*text)
		}
		elems[i] = e
	}
	return elems, t, nil
}

// elementType is the type that an array of unknown type has for the operator.
func elementType(left *node, op string) datum.Type {
	switch {
	case outcomes(op) == [3]Truth{}, left.typ == datum.Unknown, left.typ == datum.Varchar:
		return datum.Text
	}
	return left.typ
}

// arrayList binds ARRAY[...]; to is the type to which it is cast, or zero.
func (b *binder) arrayList(list *pgquery.A_ArrayExpr, to datum.Type) ([]*node, datum.Type, error) {
	elems := make([]*node, len(list.Elements))
	for i, item := range list.Elements {
		n, err := b.expr(item)
		if err != nil {
			return nil, 0, err
		}
		elems[i] = n
	}
	if to != 0 {
		return elems, to, nil
	}
	if len(elems) == 0 {
		return nil, 0, fail(list.Location, "cannot determine type of empty array")
	}
	t, culprit, ok := datum.Common(types(elems))
	if !ok {
		return nil, 0, fail(list.Location, "ARRAY types %s and %s cannot be matched", t, b.typeName(elems[culprit]))
	}
	return elems, t, nil
}

func types(list []*node) []datum.Type {
	types := make([]datum.Type, len(list))
	for i, n := range list {
		types[i] = n.typ
	}
	return types
}
