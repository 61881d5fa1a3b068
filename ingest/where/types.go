package where

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

// coerce gives a constant of unknown type the type t. A parameter keeps it for its later uses.
func (b *binder) coerce(n *node, t datum.Type) (*node, error) {
	c := &node{kind: kindConst, typ: t, param: n.param, size: 1, loc: n.loc}
	if n.isNull() {
		c.value.State = datum.Null
		return c, nil
	}
	if n.param > 0 {
		if err := b.setParam(n, paramType{typ: t}); err != nil {
			return nil, err
		}
	}
	v, err := datum.Parse(t, string(n.value.B))
	if err != nil {
		return nil, failAt(n.loc, "%s", err)
	}
	c.value = v
	return c, nil
}

// setParam notes the type of the parameter that n is.
func (b *binder) setParam(n *node, t paramType) error {
	if known, ok := b.paramTypes[n.param]; ok && known != t {
		return failAt(n.loc, "type conflict for $%d: %s and %s", n.param, t, known)
	}
	b.paramTypes[n.param] = t
	return nil
}

// convert makes n one of type t, for which there must be a conversion.
func (b *binder) convert(n *node, t datum.Type) (*node, error) {
	switch {
	case n.typ == t:
		return n, nil
	case n.typ == datum.Unknown:
		return b.coerce(n, t)
	case n.kind == kindConst && n.value.State == datum.Null:
		return &node{kind: kindConst, typ: t, value: n.value, size: 1, loc: n.loc}, nil
	case datum.Cast(n.typ, t) != nil:
		return b.make(&node{kind: kindCast, typ: t, args: []*node{n}, loc: n.loc})
	}
	return nil, failAt(n.loc, "unknown cast from type %s to type %s", b.typeName(n), t)
}

// explicitCast binds x::t.
func (b *binder) explicitCast(c *pgquery.TypeCast) (*node, error) {
	t, array, err := castTarget(c.TypeName)
	if err != nil {
		return nil, err
	}
	if array {
		return nil, fail(c.TypeName.Location, "an array is only supported as the argument of ANY or ALL")
	}
	n, err := b.expr(c.Arg)
	if err != nil {
		return nil, err
	}
	switch {
	case n.kind == kindConst && n.typ.IsText() && !t.IsText():
		v, err := datum.Parse(t, string(n.value.B))
		if err != nil {
			return nil, failAt(n.loc, "could not cast value %q from %s to %s", n.value.B, n.typ, t)
		}
		return &node{kind: kindConst, typ: t, value: v, size: 1, loc: n.loc}, nil
	case (t == datum.Text || t == datum.Varchar) && n.kind == kindColumn && printsAsStored(n.typ):
		return b.make(&node{kind: kindColumnText, typ: t, column: n.column, name: n.name, loc: n.loc})
	}
	return b.convert(n, t)
}

// printsAsStored reports whether the text form of a type in rows is its conversion to text, and the only one known.
func printsAsStored(t datum.Type) bool { return t.IsFloat() || t >= datum.Date }

// castTarget returns the type that a cast names.
func castTarget(name *pgquery.TypeName) (t datum.Type, array bool, err error) {
	text := identifier(name.Names)
	t, ok := datum.ParseType(text)
	switch {
	case !ok || name.Setof || name.PctType:
		return 0, false, fail(name.Location, "unsupported type %s", text)
	case len(name.Typmods) > 0:
		return 0, false, fail(name.Location, "unsupported type %s with a length or precision", text)
	}
	return t, len(name.ArrayBounds) > 0, nil
}

// meet brings an operand to the class in which it is compared.
func (b *binder) meet(n *node, class datum.Type) (*node, error) {
	switch {
	case n.typ.IsInt() && class == datum.Int8, n.typ.IsFloat() && class.IsFloat(), n.typ == datum.Name:
		return n, nil // values that compare as they are
	case n.typ == datum.Date && class == datum.Timestamp:
		if n.kind == kindConst {
			return b.convert(n, class)
		}
		return b.make(&node{kind: kindDate, typ: class, args: []*node{n}, loc: n.loc})
	}
	return b.convert(n, class)
}
