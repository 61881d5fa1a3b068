package where

import (
	"slices"

	"github.com/shapeline/shapeline/ingest/where/datum"
)

// Access is a condition that an index can look up: the value of one column is one of a list. Keys are compared with
// what Row.Key returns; they are distinct. A condition with no keys is never true.
type Access struct {
	Column int
	Keys   []string
}

// findAccess returns the best access among the conjuncts of root, the one with the fewest keys, and the tree that
// remains, nil if nothing does.
func findAccess(root *node) (*Access, *node) {
	conjuncts := []*node{root}
	if root.kind == kindAnd {
		conjuncts = root.args
	}
	var best *Access
	at := 0
	for i, n := range conjuncts {
		if a, ok := accessOf(n); ok && (best == nil || len(a.Keys) < len(best.Keys)) {
			best, at = &a, i
		}
	}
	if best == nil {
		return nil, nil
	}
	slices.Sort(best.Keys)
	best.Keys = slices.Compact(best.Keys)
	rest := slices.Delete(slices.Clone(conjuncts), at, at+1)
	switch len(rest) {
	case 0:
		return best, nil
	case 1:
		return best, rest[0]
	}
	return best, &node{kind: kindAnd, typ: datum.Bool, args: rest, loc: root.loc}
}

// accessOf returns what n, a comparison with constants or several of one column, looks up.
func accessOf(n *node) (Access, bool) {
	switch n.kind {
	case kindCompare:
		if n.op != "=" {
			return Access{}, false
		}
		for i, a := range n.args {
			other := n.args[1-i]
			if column, ok := keyColumn(a, n.class); ok && other.kind == kindConst {
				return Access{column, []string{string(other.value.AppendKey(nil, n.class))}}, true
			}
		}
	case kindAny:
		column, ok := keyColumn(n.args[0], n.class)
		if !ok || n.op != "=" || n.not {
			return Access{}, false
		}
		a := Access{Column: column}
		for i := range n.elems {
			if n.elems[i].State == datum.OK {
				a.Keys = append(a.Keys, string(n.elems[i].AppendKey(nil, n.class)))
			}
		}
		return a, true
	case kindOr:
		all, ok := accessOf(n.args[0])
		for _, arg := range n.args[1:] {
			a, too := accessOf(arg)
			if !ok || !too || a.Column != all.Column {
				return Access{}, false
			}
			all.Keys = append(all.Keys, a.Keys...)
		}
		return all, ok
	}
	return Access{}, false
}

// keyColumn returns the column that n is, if equality in the class is equality of the column's keys: the column
// itself, or a conversion of it that keeps them.
func keyColumn(n *node, class datum.Type) (int, bool) {
	if n.kind == kindColumn {
		return n.column, true
	}
	if n.kind != kindCast || n.args[0].kind != kindColumn {
		return 0, false
	}
	from, to := n.args[0].typ, n.typ
	switch {
	case from.IsInt() && (to.IsInt() && to > from || to == datum.Numeric) && class == to,
		from == datum.Float4 && to == datum.Float8,
		from.IsText() && (to == datum.Text || to == datum.Varchar) && class == datum.Text:
		return n.args[0].column, true
	}
	return 0, false
}
