package pgoutput

import "github.com/shapeline/shapeline/internal/pg"

// What stands before a row: a whole old row, the key columns of one, or a new row.
const (
	rowOld = 'O'
	rowKey = 'K'
	rowNew = 'N'
)

// What stands before a value.
const (
	valueNull      = 'n'
	valueUnchanged = 'u' // a TOAST value that the update did not touch
	valueText      = 't'
	valueBinary    = 'b'
)

func (d *Decoder) insert(r *reader, c *pg.Change) (err error) {
	c.Op = pg.Insert
	if c.Relation, err = d.known(r); err != nil {
		return err
	}
	if r.left() < 1 || r.byte() != rowNew {
		return r.malformed("no new row")
	}
	c.New, err = row(r, c.Relation, &d.newRow, nil)
	return err
}

func (d *Decoder) update(r *reader, c *pg.Change) (err error) {
	c.Op = pg.Update
	if c.Relation, err = d.known(r); err != nil {
		return err
	}
	if c.Old, err = d.old(r, c.Op, c.Relation); err != nil {
		return err
	}
	if r.left() < 1 || r.byte() != rowNew {
		return r.malformed("no new row")
	}
	c.New, err = row(r, c.Relation, &d.newRow, c.Old)
	return err
}

func (d *Decoder) delete(r *reader, c *pg.Change) (err error) {
	c.Op = pg.Delete
	if c.Relation, err = d.known(r); err != nil {
		return err
	}
	c.Old, err = d.old(r, c.Op, c.Relation)
	return err
}

// old reads the old row of an update or delete.
func (d *Decoder) old(r *reader, op pg.Op, rel *pg.Relation) (pg.Row, error) {
	if r.left() < 1 {
		return nil, r.malformed("too short")
	}
	switch r.byte() {
	case rowOld:
		return row(r, rel, &d.oldRow, nil)
	case rowKey:
		return nil, &ReplicaIdentityError{Relation: rel, Op: op}
	case rowNew:
		if op == pg.Update {
			return nil, &ReplicaIdentityError{Relation: rel, Op: op}
		}
	}
	return nil, r.malformed("no old row")
}

// row reads one row into *buf, which it grows to the relation's width once. Values that are unchanged come from old;
// without old there can be none.
func row(r *reader, rel *pg.Relation, buf *pg.Row, old pg.Row) (pg.Row, error) {
	if r.left() < 2 {
		return nil, r.malformed("too short")
	}
	if n := int(r.uint16()); n != len(rel.Columns) {
		return nil, r.malformed("a row with another number of columns than its relation")
	}
	if cap(*buf) < len(rel.Columns) {
		*buf = make(pg.Row, len(rel.Columns))
	}
	values := (*buf)[:len(rel.Columns)]
	for i := range values {
		if r.left() < 1 {
			return nil, r.malformed("too short")
		}
		switch r.byte() {
		case valueText:
			if r.left() < 4 {
				return nil, r.malformed("too short")
			}
			n := r.uint32()
			if uint64(n) > uint64(r.left()) {
				return nil, r.malformed("a value longer than the message")
			}
			end := r.at + int(n)
			values[i] = r.b[r.at:end:end]
			r.at = end
		case valueNull:
			values[i] = nil
		case valueUnchanged:
			if old == nil {
				return nil, r.malformed("an unchanged value without an old row")
			}
			values[i] = old[i]
		case valueBinary:
			return nil, r.malformed("a binary value, which was not asked for")
		default:
			return nil, r.malformed("a value of unknown form")
		}
	}
	return values, nil
}
