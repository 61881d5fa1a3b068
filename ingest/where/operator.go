package where

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

func (b *binder) operator(e *pgquery.A_Expr) (*node, error) {
	op, loc := identifier(e.Name), place(e.Location)
	if len(e.Name) != 1 {
		return nil, failAt(loc, "operators with a schema are not supported")
	}
	switch e.Kind {
	case pgquery.A_Expr_Kind_AEXPR_SIMILAR, pgquery.A_Expr_Kind_AEXPR_NULLIF:
		return nil, failAt(loc, "expression %s of :%s is not currently supported", op, e.Kind)
	}
	if e.Lexpr == nil {
		return b.unary(op, e.Rexpr, loc)
	}
	left, err := b.expr(e.Lexpr)
	if err != nil {
		return nil, err
	}
	switch e.Kind {
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY, pgquery.A_Expr_Kind_AEXPR_OP_ALL:
		return b.anyAll(op, left, e.Rexpr, e.Kind == pgquery.A_Expr_Kind_AEXPR_OP_ALL, loc)
	case pgquery.A_Expr_Kind_AEXPR_IN:
		return b.in(left, e.Rexpr, op == "<>", loc)
	case pgquery.A_Expr_Kind_AEXPR_BETWEEN, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pgquery.A_Expr_Kind_AEXPR_BETWEEN_SYM, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		return b.between(e.Kind, left, e.Rexpr, loc)
	}
	right, err := b.operand(e.Rexpr, loc)
	if err != nil {
		return nil, err
	}
	switch e.Kind {
	case pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return b.distinct(left, right, e.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT, loc)
	case pgquery.A_Expr_Kind_AEXPR_OP, pgquery.A_Expr_Kind_AEXPR_LIKE, pgquery.A_Expr_Kind_AEXPR_ILIKE:
		return b.binary(op, left, right, loc)
	}
	return nil, failAt(loc, "expression %s of :%s is not currently supported", op, e.Kind)
}

// operand binds the right side of an operator, which may be LIKE's pattern with an ESCAPE clause.
func (b *binder) operand(tree *pgquery.Node, loc int) (*node, error) {
	call := tree.GetFuncCall()
	if call == nil || identifier(call.Funcname) != "like_escape" || len(call.Args) != 2 {
		return b.expr(tree)
	}
	var args [2]*node
	for i, a := range call.Args {
		n, err := b.expr(a)
		if err != nil {
			return nil, err
		}
		if n.kind != kindConst || n.typ != datum.Unknown || n.isNull() {
			return nil, failAt(loc, "LIKE with ESCAPE needs constants")
		}
		args[i] = n
	}
	text, ok := datum.EscapeWith(string(args[0].value.B), string(args[1].value.B))
	if !ok {
		return nil, failAt(args[1].loc, "invalid escape string")
	}
	n := &node{kind: kindConst, typ: datum.Unknown, size: 1, loc: args[0].loc}
	n.value.B = []byte(text)
	return n, nil
}

// binary binds an operator by its name.
func (b *binder) binary(op string, l, r *node, loc int) (*node, error) {
	switch op {
	case "=", "<>", "<", "<=", ">", ">=":
		return b.compare(&node{kind: kindCompare, op: op, loc: loc}, l, r)
	case "+", "-", "*", "/":
		return b.arith(op, l, r, loc)
	case "~~", "!~~", "~~*", "!~~*":
		return b.like(op, l, r, loc)
	}
	return nil, failAt(loc, "unknown binary operator %s", op)
}

func (b *binder) unary(op string, tree *pgquery.Node, loc int) (*node, error) {
	arg, err := b.expr(tree)
	switch {
	case err != nil:
		return nil, err
	case op != "-" && op != "+":
		return nil, failAt(loc, "unknown unary operator %s", op)
	case !arg.typ.IsNumber():
		return nil, failAt(loc, "Could not select an operator overload")
	case op == "+":
		return arg, nil
	}
	return b.make(&node{kind: kindNegate, typ: arg.typ, args: []*node{arg}, loc: loc})
}

// overload says that no operator takes these operands, as precisely as can be.
func (b *binder) overload(l, r *node, loc int) error {
	for _, n := range []*node{l, r} {
		if n.kind == kindColumn && n.typ == datum.Other {
			return failAt(n.loc, "reference %s of type %s can only be tested with IS [NOT] NULL", n.name, b.typeName(n))
		}
	}
	for _, pair := range [][2]*node{{l, r}, {r, l}} {
		if p, other := pair[0], pair[1]; p.param > 0 && other.typ != datum.Unknown {
			return failAt(p.loc, "type conflict for $%d: %s and %s", p.param, b.typeName(other), p.typ)
		}
	}
	return failAt(loc, "Could not select an operator overload")
}

// operands brings two operands to the class in which they are compared.
func (b *binder) operands(l, r *node, loc int) (_, _ *node, class datum.Type, err error) {
	class, ok := datum.CompareAs(l.typ, r.typ)
	if !ok {
		return nil, nil, 0, b.overload(l, r, loc)
	}
	lt, rt := l.typ, r.typ
	if l, err = b.operandAs(l, rt, class); err != nil {
		return nil, nil, 0, err
	}
	if r, err = b.operandAs(r, lt, class); err != nil {
		return nil, nil, 0, err
	}
	return l, r, class, nil
}

// operandAs brings one operand to the class; a constant of unknown type takes the type of the other first.
func (b *binder) operandAs(n *node, other, class datum.Type) (*node, error) {
	if n.typ == datum.Unknown {
		if other == datum.Unknown || other == datum.Varchar {
			other = datum.Text
		}
		var err error
		if n, err = b.coerce(n, other); err != nil {
			return nil, err
		}
	}
	return b.meet(n, class)
}

// compare completes n, a comparison of two operands.
func (b *binder) compare(n *node, l, r *node) (*node, error) {
	l, r, class, err := b.operands(l, r, n.loc)
	if err != nil {
		return nil, err
	}
	n.typ, n.class, n.args = datum.Bool, class, []*node{l, r}
	if err := b.checkCollation(n); err != nil {
		return nil, err
	}
	return b.make(n)
}

// checkCollation refuses comparisons of texts that are more than a comparison of bytes.
func (b *binder) checkCollation(n *node) error {
	seen := ""
	for _, a := range n.args {
		switch {
		case a.collation == "nondeterministic":
			return failAt(a.loc, "columns with a nondeterministic collation are not supported")
		case a.collation == "" || a.collation == seen:
		case seen == "":
			seen = a.collation
		case n.op == "=" || n.op == "<>" || n.op == "":
			return failAt(n.loc, "could not determine which collation to use for string comparison")
		}
	}
	return nil
}

func (b *binder) distinct(l, r *node, not bool, loc int) (*node, error) {
	switch {
	case r.isNull():
		return b.isNull(l, !not, loc)
	case l.isNull():
		return b.isNull(r, !not, loc)
	}
	return b.compare(&node{kind: kindDistinct, not: not, loc: loc}, l, r)
}

func (b *binder) arith(op string, l, r *node, loc int) (*node, error) {
	lt, rt := l.typ, r.typ
	if lt == datum.Unknown {
		lt = rt
	}
	if rt == datum.Unknown {
		rt = lt
	}
	if !lt.IsNumber() || !rt.IsNumber() {
		return nil, b.overload(l, r, loc)
	}
	t := datum.MeetNumbers(lt, rt)
	var args [2]*node
	var err error
	for i, n := range []*node{l, r} {
		if n.typ == datum.Unknown {
			if n, err = b.coerce(n, lt); err != nil {
				return nil, err
			}
		}
		if n.typ.IsInt() != t.IsInt() || n.typ == datum.Numeric && t != datum.Numeric {
			if n, err = b.convert(n, t); err != nil {
				return nil, err
			}
		}
		args[i] = n
	}
	return b.make(&node{kind: kindArith, op: op, typ: t, args: args[:], loc: loc})
}

// like binds LIKE and its kin. The pattern must be a constant.
func (b *binder) like(op string, l, r *node, loc int) (*node, error) {
	n := &node{kind: kindLike, typ: datum.Bool, not: op[0] == '!', loc: loc}
	fold := strings.HasSuffix(op, "*")
	n.op = "LIKE"
	if fold {
		n.op = "ILIKE"
	}
	if n.not {
		n.op = "NOT " + n.op
	}
	var err error
	for _, p := range []**node{&l, &r} {
		if (*p).typ != datum.Unknown {
			continue
		}
		if *p, err = b.coerce(*p, datum.Text); err != nil {
			return nil, err
		}
	}
	if !l.typ.IsText() || !r.typ.IsText() {
		return nil, b.overload(l, r, loc)
	}
	if r.kind != kindConst {
		return nil, failAt(r.loc, "the pattern of %s must be a constant", n.op)
	}
	if r.isNull() {
		return boolConst(Null, loc), nil
	}
	if r, err = b.convert(r, datum.Text); err != nil {
		return nil, err
	}
	if len(r.value.B) > patternBytesMax {
		return nil, failAt(r.loc, "the pattern of %s is too long (max length is %d bytes)", n.op, patternBytesMax)
	}
	n.args, n.text = []*node{l}, string(r.value.B)
	if err := b.checkCollation(n); err != nil {
		return nil, err
	}
	if fold && !bytewise(l.collation) && !datum.FoldsEverywhere(n.text) {
		return nil, failAt(r.loc, "%s folds only the letters A to Z reliably; other letters depend on the locale", n.op)
	}
	var ok bool
	if n.like, ok = datum.CompilePattern(n.text, fold); !ok {
		return nil, failAt(r.loc, "LIKE pattern must not end with escape character")
	}
	return b.make(n)
}

// between binds a BETWEEN as the comparisons for which it stands.
func (b *binder) between(k pgquery.A_Expr_Kind, x *node, bounds *pgquery.Node, loc int) (*node, error) {
	items := bounds.GetList().GetItems()
	if len(items) != 2 {
		return nil, failAt(loc, "BETWEEN needs two bounds")
	}
	lo, err := b.expr(items[0])
	if err != nil {
		return nil, err
	}
	hi, err := b.expr(items[1])
	if err != nil {
		return nil, err
	}
	ops, inner, outer := [2]string{">=", "<="}, kindAnd, kindOr
	if k == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN || k == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM {
		ops, inner, outer = [2]string{"<", ">"}, kindOr, kindAnd
	}
	within := func(bounds ...*node) (*node, error) {
		var parts [2]*node
		for i, bound := range bounds {
			l, err := b.settle(x)
			if err != nil {
				return nil, err
			}
			if bound, err = b.settle(bound); err != nil {
				return nil, err
			}
			if parts[i], err = b.binary(ops[i], l, bound, loc); err != nil {
				return nil, err
			}
		}
		return b.junction(inner, parts[:], loc)
	}
	one, err := within(lo, hi)
	if err != nil || k == pgquery.A_Expr_Kind_AEXPR_BETWEEN || k == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN {
		return one, err
	}
	other, err := within(hi, lo)
	if err != nil {
		return nil, err
	}
	return b.junction(outer, []*node{one, other}, loc)
}
