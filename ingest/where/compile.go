package where

import (
	"github.com/shapeline/shapeline/ingest/where/datum"
)

// The two kinds of compiled nodes. A value belongs to the row, or is a constant, and is not to be changed.
type (
	truthFunc func(*Row) Truth
	valueFunc func(*Row) *datum.Value
)

// compiler turns nodes into functions. Operators that make a new value get a slot of the row to put it in.
type compiler struct{ slots int }

func (c *compiler) slot() int {
	c.slots++
	return c.slots - 1
}

// setMin is the number of constants from which a set is faster than comparing one by one.
const setMin = 16

func (c *compiler) truth(n *node) truthFunc {
	switch n.kind {
	case kindConst:
		t := n.truth()
		return func(*Row) Truth { return t }
	case kindCompare:
		return c.compare(n)
	case kindDistinct:
		return c.distinct(n)
	case kindAny:
		return c.any(n)
	case kindLike:
		return c.like(n)
	case kindAnd:
		return c.junction(n, False)
	case kindOr:
		return c.junction(n, True)
	case kindNot:
		arg := c.truth(n.args[0])
		return func(r *Row) Truth { return [...]Truth{True, False, Null, Fault}[arg(r)] }
	case kindNull:
		return c.null(n)
	case kindTest:
		arg, test, is, isNot := c.truth(n.args[0]), n.test, True, False
		if n.not {
			is, isNot = isNot, is
		}
		return func(r *Row) Truth {
			switch arg(r) {
			case test:
				return is
			case Fault:
				return Fault
			}
			return isNot
		}
	}
	value := c.value(n)
	return func(r *Row) Truth { return valueTruth(value(r)) }
}

// junction is AND, decided by the first False, or OR, decided by the first True; a fault before it decides, too.
func (c *compiler) junction(n *node, decisive Truth) truthFunc {
	args := make([]truthFunc, len(n.args))
	for i, a := range n.args {
		args[i] = c.truth(a)
	}
	neutral := True + False - decisive
	return func(r *Row) Truth {
		result := neutral
		for _, arg := range args {
			switch t := arg(r); t {
			case decisive, Fault:
				return t
			case Null:
				result = Null
			}
		}
		return result
	}
}

// outcomes returns the results of op for an order of -1, 0 and 1.
func outcomes(op string) [3]Truth {
	return map[string][3]Truth{
		"=": {False, True, False}, "<>": {True, False, True}, "<": {True, False, False},
		"<=": {True, True, False}, ">": {False, False, True}, ">=": {False, True, True},
	}[op]
}

// strict returns the outcome of an operator one of whose operands is not OK.
func strict(a, b datum.State) Truth {
	if a == datum.Bad || b == datum.Bad {
		return Fault
	}
	return Null
}

func (c *compiler) compare(n *node) truthFunc {
	left, right := c.value(n.args[0]), c.value(n.args[1])
	order, outcome := datum.Comparer(n.class), outcomes(n.op)
	return func(r *Row) Truth {
		a, b := left(r), right(r)
		if a.State|b.State != datum.OK {
			return strict(a.State, b.State)
		}
		return outcome[order(a, b)+1]
	}
}

func (c *compiler) distinct(n *node) truthFunc {
	left, right := c.value(n.args[0]), c.value(n.args[1])
	order := datum.Comparer(n.class)
	same, different := False, True
	if n.not {
		same, different = True, False
	}
	return func(r *Row) Truth {
		a, b := left(r), right(r)
		switch {
		case a.State == datum.Bad || b.State == datum.Bad:
			return Fault
		case a.State != b.State, a.State == datum.OK && order(a, b) != 0:
			return different
		}
		return same
	}
}

// any is op ANY over constants, decided by the first True, or op ALL, decided by the first False.
func (c *compiler) any(n *node) truthFunc {
	left := c.value(n.args[0])
	order, outcome := datum.Comparer(n.class), outcomes(n.op)
	decisive := True
	if n.not {
		decisive = False
	}
	otherwise, elems := True+False-decisive, make([]datum.Value, 0, len(n.elems))
	for _, e := range n.elems {
		if e.State == datum.Null {
			otherwise = Null
		} else {
			elems = append(elems, e)
		}
	}
	empty := len(n.elems) == 0
	lookUp := func(r *Row, v *datum.Value) bool {
		for i := range elems {
			if outcome[order(v, &elems[i])+1] == decisive {
				return true
			}
		}
		return false
	}
	if len(elems) >= setMin && (n.op == "=" && !n.not || n.op == "<>" && n.not) {
		set := make(map[string]struct{}, len(elems))
		for i := range elems {
			set[string(elems[i].AppendKey(nil, n.class))] = struct{}{}
		}
		class := n.class
		lookUp = func(r *Row, v *datum.Value) bool {
			r.lookUp = v.AppendKey(r.lookUp[:0], class)
			_, found := set[string(r.lookUp)]
			return found
		}
	}
	return func(r *Row) Truth {
		v := left(r)
		switch {
		case v.State == datum.Bad:
			return Fault
		case empty:
			return otherwise
		case v.State == datum.Null:
			return Null
		case lookUp(r, v):
			return decisive
		}
		return otherwise
	}
}

func (c *compiler) like(n *node) truthFunc {
	left, p := c.value(n.args[0]), n.like
	matches, fails := True, False
	if n.not {
		matches, fails = fails, matches
	}
	return func(r *Row) Truth {
		v := left(r)
		switch {
		case v.State != datum.OK:
			return strict(v.State, datum.OK)
		case p.Match(v.B):
			return matches
		}
		return fails
	}
}

func (c *compiler) null(n *node) truthFunc {
	null, other := True, False
	if n.not {
		null, other = other, null
	}
	if n.args[0].kind == kindColumn {
		column := n.args[0].column
		return func(r *Row) Truth {
			if r.isNull(column) {
				return null
			}
			return other
		}
	}
	value := c.value(n.args[0])
	return func(r *Row) Truth {
		switch value(r).State {
		case datum.Null:
			return null
		case datum.Bad:
			return Fault
		}
		return other
	}
}

func (c *compiler) value(n *node) valueFunc {
	switch n.kind {
	case kindConst:
		v := n.value // a copy, so that the tree can go
		return func(*Row) *datum.Value { return &v }
	case kindColumn:
		i := n.column
		return func(r *Row) *datum.Value { return r.column(i) }
	case kindColumnText:
		i, slot := n.column, c.slot()
		return func(r *Row) *datum.Value {
			v := &r.slots[slot]
			*v = badValue
			if i < len(r.values) {
				v.Read(datum.Text, r.values[i])
			}
			return v
		}
	case kindArith:
		return c.arith(n)
	case kindNegate:
		return c.unary(n, datum.Negate(n.typ))
	case kindCast:
		return c.unary(n, datum.Cast(n.args[0].typ, n.typ))
	case kindDate:
		return c.unary(n, datum.DateAsTimestamp)
	}
	truth, slot := c.truth(n), c.slot()
	return func(r *Row) *datum.Value {
		v := &r.slots[slot]
		*v = truthValue(truth(r))
		return v
	}
}

func (c *compiler) arith(n *node) valueFunc {
	left, right, slot := c.value(n.args[0]), c.value(n.args[1]), c.slot()
	calculate := datum.Binary(n.op[0], n.typ)
	return func(r *Row) *datum.Value {
		a, b := left(r), right(r)
		v := &r.slots[slot]
		switch {
		case a.State == datum.Bad || b.State == datum.Bad:
			v.State = datum.Bad
		case a.State == datum.Null || b.State == datum.Null:
			v.State = datum.Null
		default:
			calculate(v, a, b)
		}
		return v
	}
}

func (c *compiler) unary(n *node, calculate func(dst, a *datum.Value)) valueFunc {
	arg, slot := c.value(n.args[0]), c.slot()
	return func(r *Row) *datum.Value {
		a, v := arg(r), &r.slots[slot]
		if a.State != datum.OK {
			v.State = a.State
			return v
		}
		calculate(v, a)
		return v
	}
}
