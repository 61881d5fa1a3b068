// Package match finds the shapes of one relation that a change touches: those the row was in before it, and those it
// is in after. It owns the index over the shapes' conditions; what a condition means is ingest/where's, and what to
// send to a shape is for the pipeline.
//
// The one idea: cost follows the shapes that match, not those that exist. A condition that ties a column to constants
// is found by looking up the row's value, one look-up a column however many shapes there are; what else it asks, and
// conditions that cannot be looked up, are evaluated once for all shapes that ask the same.
package match

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/pg"
)

// Hit says that the row of a change is in a shape: before it, after it, or both.
type Hit struct {
	ID       uint64
	Old, New bool
}

// Stats counts the work of an Index since it was made.
type Stats struct {
	Probes      uint64 // look-ups of a row's value
	Evaluations uint64 // of a condition on a row
}

// Index holds shapes by numbers that the caller gives. It is for one goroutine at a time.
type Index struct {
	rel      *pg.Relation
	shapes   map[uint64]*where.Expr
	columns  []*column // those that some condition ties to constants
	rest     bucket    // shapes that cannot be looked up, and those without a condition
	groups   map[groupKey]*group
	old, new where.Row
	stats    Stats
}

// bucket is the shapes that one look-up finds.
type bucket struct {
	ids    []uint64 // those that ask for nothing else, ascending
	groups []*group
}

// group is the shapes of one bucket that ask for the same besides.
type group struct {
	condition *where.Expr
	ids       []uint64 // ascending
	at        int      // in the bucket
}

// groupKey names a group: by its bucket, and the canonical text of its condition.
type groupKey struct {
	bucket *bucket
	text   string
}

// New returns an empty index for the changes of rel.
func New(rel *pg.Relation) *Index {
	return &Index{rel: rel, shapes: map[uint64]*where.Expr{}, groups: map[groupKey]*group{}}
}

// Len returns the number of shapes.
func (x *Index) Len() int { return len(x.shapes) }

// Stats returns the work done so far.
func (x *Index) Stats() Stats { return x.stats }

// Add puts in a shape with its condition over the index's relation. A shape with the same id is replaced.
func (x *Index) Add(id uint64, e *where.Expr) {
	x.Remove(id)
	x.shapes[id] = e
	if never(e) {
		return
	}
	a, ok := e.Access()
	if !ok {
		x.join(&x.rest, id, e)
		return
	}
	c := x.column(a.Column)
	if c == nil && len(a.Keys) > 0 {
		c = newColumn(a.Column)
		x.columns = append(x.columns, c)
	}
	simple := e.Residual() == nil
	for _, k := range a.Keys {
		found, ok := c.find([]byte(k))
		switch {
		case !ok && simple:
			c.set(k, entry{only: id})
			continue
		case !ok:
			found = entry{bucket: &bucket{}}
			c.set(k, found)
		case found.bucket == nil:
			found = entry{bucket: &bucket{ids: []uint64{found.only}}}
			c.set(k, found)
		}
		x.join(found.bucket, id, e.Residual())
	}
}

// Remove takes a shape out; unknown ones are not there already.
func (x *Index) Remove(id uint64) {
	e, known := x.shapes[id]
	if !known {
		return
	}
	delete(x.shapes, id)
	if never(e) {
		return
	}
	a, ok := e.Access()
	if !ok {
		x.leave(&x.rest, id, e)
		return
	}
	c := x.column(a.Column)
	for _, k := range a.Keys {
		found, _ := c.find([]byte(k))
		if b := found.bucket; b != nil {
			if x.leave(b, id, e.Residual()); len(b.ids) > 0 || len(b.groups) > 0 {
				continue
			}
		}
		c.drop(k)
	}
	if c != nil && c.empty() {
		x.columns = slices.DeleteFunc(x.columns, func(o *column) bool { return o == c })
	}
}

// never reports whether a condition is true for no row, as far as its constants tell. Such a shape is not indexed.
func never(e *where.Expr) bool { return e.Nothing() || e.Residual() != nil && e.Residual().Nothing() }

func (x *Index) column(number int) *column {
	for _, c := range x.columns {
		if c.number == number {
			return c
		}
	}
	return nil
}

// join puts a shape into a bucket, with what it asks for besides: nil for nothing.
func (x *Index) join(b *bucket, id uint64, condition *where.Expr) {
	if condition == nil || condition.Everything() {
		b.ids = insert(b.ids, id)
		return
	}
	key := groupKey{b, condition.Canonical()}
	g := x.groups[key]
	if g == nil {
		g = &group{condition: condition, at: len(b.groups)}
		b.groups = append(b.groups, g)
		x.groups[key] = g
	}
	g.ids = insert(g.ids, id)
}

// leave undoes join.
func (x *Index) leave(b *bucket, id uint64, condition *where.Expr) {
	if condition == nil || condition.Everything() {
		b.ids = remove(b.ids, id)
		return
	}
	key := groupKey{b, condition.Canonical()}
	g := x.groups[key]
	if g.ids = remove(g.ids, id); len(g.ids) > 0 {
		return
	}
	delete(x.groups, key)
	last := len(b.groups) - 1
	b.groups[g.at] = b.groups[last]
	b.groups[g.at].at = g.at
	b.groups[last] = nil
	b.groups = b.groups[:last]
}

func insert(ids []uint64, id uint64) []uint64 {
	i, _ := slices.BinarySearch(ids, id)
	return slices.Insert(ids, i, id)
}

func remove(ids []uint64, id uint64) []uint64 {
	if i, ok := slices.BinarySearch(ids, id); ok {
		return slices.Delete(ids, i, i+1)
	}
	return ids
}

// Match appends the shapes that c touches to dst, each once, by ascending id. It keeps nothing of c.
func (x *Index) Match(c *pg.Change, dst []Hit) []Hit {
	m := matcher{
		Index: x, change: c, hits: dst,
		hasOld: c.Old != nil && (c.Op == pg.Update || c.Op == pg.Delete),
		hasNew: c.New != nil && (c.Op == pg.Update || c.Op == pg.Insert),
	}
	if !m.hasOld && !m.hasNew {
		return dst
	}
	if m.hasOld {
		x.old.Reset(x.rel, c.Old)
	}
	if m.hasNew {
		x.new.Reset(x.rel, c.New)
	}
	m.visit(&x.rest, m.hasOld, m.hasNew)
	for _, col := range x.columns {
		m.look(col)
	}
	return inOrder(m.hits, len(dst))
}

// matcher is one call of Match.
type matcher struct {
	*Index
	change         *pg.Change
	hits           []Hit
	hasOld, hasNew bool
}

// look visits the shapes that the values of one column lead to.
func (m *matcher) look(c *column) {
	var oldKey, newKey []byte
	var inOld, inNew bool
	if m.hasOld {
		oldKey, inOld = m.old.Key(c.number)
	}
	if m.hasNew {
		newKey, inNew = m.new.Key(c.number)
	}
	if inOld && inNew && bytes.Equal(oldKey, newKey) {
		m.probe(c, newKey, true, true)
		return
	}
	if inOld {
		m.probe(c, oldKey, true, false)
	}
	if inNew {
		m.probe(c, newKey, false, true)
	}
}

// probe looks up one value, which the old row has, or the new one, or both.
func (m *matcher) probe(c *column, key []byte, old, new bool) {
	m.stats.Probes++
	found, ok := c.find(key)
	switch {
	case !ok:
	case found.bucket == nil:
		m.hits = append(m.hits, Hit{found.only, old, new})
	default:
		m.visit(found.bucket, old, new)
	}
}

// visit appends the shapes of a bucket to which the old row, the new one or both lead.
func (m *matcher) visit(b *bucket, old, new bool) {
	for _, id := range b.ids {
		m.hits = append(m.hits, Hit{id, old, new})
	}
	for _, g := range b.groups {
		inNew := new && m.eval(g.condition, &m.new)
		inOld := inNew
		if !old || !new || !m.sameFor(g.condition) {
			inOld = old && m.eval(g.condition, &m.old)
		}
		if inOld || inNew {
			for _, id := range g.ids {
				m.hits = append(m.hits, Hit{id, inOld, inNew})
			}
		}
	}
}

func (m *matcher) eval(e *where.Expr, r *where.Row) bool {
	m.stats.Evaluations++
	return e.Eval(r) == where.True
}

// sameFor reports whether an update changes nothing that e depends on.
func (m *matcher) sameFor(e *where.Expr) bool {
	for _, i := range e.Columns() {
		if i >= len(m.change.Old) || i >= len(m.change.New) {
			return false
		}
		a, b := m.change.Old[i], m.change.New[i]
		if (a == nil) != (b == nil) || !bytes.Equal(a, b) {
			return false
		}
	}
	return true
}

// inOrder sorts the hits behind the first n, which consist of sorted runs, and merges those of one shape: a change
// of key can lead to it from both sides.
func inOrder(hits []Hit, n int) []Hit {
	fresh := hits[n:]
	ascending := true
	for i := 1; i < len(fresh) && ascending; i++ {
		ascending = fresh[i-1].ID < fresh[i].ID
	}
	if ascending {
		return hits
	}
	slices.SortFunc(fresh, func(a, b Hit) int { return cmp.Compare(a.ID, b.ID) })
	last := 0
	for _, h := range fresh[1:] {
		if h.ID == fresh[last].ID {
			fresh[last].Old = fresh[last].Old || h.Old
			fresh[last].New = fresh[last].New || h.New
			continue
		}
		last++
		fresh[last] = h
	}
	return hits[:n+last+1]
}
