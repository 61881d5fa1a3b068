package ingest

import (
	"fmt"

	"github.com/shapeline/shapeline/ingest/match"
	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// table is a Postgres table that has shapes.
type table struct {
	rel         *pg.Relation // as the catalogue described it; a relation message that differs ends the table's shapes
	seen        *pg.Relation // the stream's description that was last compared with rel, and found to fit
	index       *match.Index
	members     map[uint64]*member // by slot, the number the index knows it by
	projections map[string]*projection
}

// projection renders for all shapes of a table with the same columns and replica mode, each change once.
type projection struct {
	*shape.Projection
	users  int
	change uint64 // serial of the change that the fields below are about
	insert int    // message numbers in the frame; -1 is not rendered yet
	remove int
	update []int // of one update: nothing, one message, or delete and insert
	judged bool
}

// member is a shape that the pipeline keeps up to date.
type member struct {
	id         shape.ID
	info       *catalog.Info
	canonical  string
	slot       uint64
	table      *table
	projection *projection
	snapshot   *pg.Snapshot // transactions it sees are in the base already; nil once the stream has passed it
	unclosed   uint64       // bytes of entries after the last closed chunk
	opening    *opening     // not nil until its opened record is in a frame
	gone       bool         // dropped

	refs   []segment.Ref // postings of the frame being built
	lastTx uint64        // serial of the transaction that the last of refs belongs to
}

func newTable(rel *pg.Relation) *table {
	return &table{
		rel:         rel,
		index:       match.New(rel),
		members:     make(map[uint64]*member),
		projections: make(map[string]*projection),
	}
}

func (t *table) add(m *member, expr *where.Expr) {
	d := m.info.Definition
	key := fmt.Sprint(d.Replica, m.info.Columns)
	p := t.projections[key]
	if p == nil {
		p = &projection{Projection: shape.NewProjection(t.rel, m.info.Columns, d.Replica)}
		t.projections[key] = p
	}
	p.users++
	m.table, m.projection = t, p
	t.members[m.slot] = m
	t.index.Add(m.slot, expr)
}

func (t *table) remove(m *member) {
	m.gone = true
	t.index.Remove(m.slot)
	delete(t.members, m.slot)
	m.projection.users--
	if m.projection.users == 0 {
		for key, p := range t.projections {
			if p == m.projection {
				delete(t.projections, key)
			}
		}
	}
}

// begin forgets what was rendered for the change before.
func (p *projection) begin(change uint64) {
	if p.change != change {
		p.change, p.insert, p.remove, p.update, p.judged = change, -1, -1, p.update[:0], false
	}
}
