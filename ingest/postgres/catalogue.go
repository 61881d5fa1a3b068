package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// ErrNoTable means that there is no ordinary or partitioned table of the name.
var ErrNoTable = errors.New("no such table")

// describeSQL returns a row for each column of one table, or one row with a NULL column for a table without any. A
// single statement sees one state of the catalogue. The condition is to follow.
//
// A type is an array if its element type says so: int2vector and its like print in another form. Tables made by
// CREATE TABLE AS have arrays of zero declared dimensions, which clients would take for no array.
const describeSQL = `SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident,
	a.attname, a.atttypid, a.atttypmod, coalesce(e.typname, t.typname), format_type(a.atttypid, a.atttypmod),
	CASE WHEN e.oid IS NULL THEN 0 ELSE greatest(a.attndims, 1) END, a.attnotnull, k.place, a.attgenerated <> '',
	CASE WHEN a.attcollation = 0 THEN '' WHEN NOT l.collisdeterministic THEN 'nondeterministic' ELSE l.collname END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indisvalid
LEFT JOIN LATERAL (SELECT k.place FROM unnest(i.indkey) WITH ORDINALITY k(attnum, place)
	WHERE k.attnum = a.attnum AND k.place <= i.indnkeyatts) k ON true
WHERE c.relkind IN ('r', 'p') AND `

// describeOrder ends describeSQL.
const describeOrder = ` ORDER BY a.attnum`

// Describe reads a table's definition from the catalogue, as it is now. It returns ErrNoTable if there is none or it
// is a view, a foreign table or anything else that does not hold rows that replication knows.
func (db *DB) Describe(ctx context.Context, t shape.Table) (*pg.Relation, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", t, err)
	}
	defer conn.Release()
	rows, err := queryParams(ctx, conn.Conn().PgConn(), describeSQL+`n.nspname = $1 AND c.relname = $2`+describeOrder,
		t.Schema, t.Name)
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", t, err)
	}
	rel, err := described(rows)
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", t, err)
	}
	return rel, nil
}

// describeByOID is the statement that describes the table with this id.
func describeByOID(oid pg.OID) string {
	return describeSQL + `c.oid = ` + strconv.FormatUint(uint64(oid), 10) + describeOrder
}

// described makes a relation of the rows of describeSQL.
func described(rows [][][]byte) (*pg.Relation, error) {
	if len(rows) == 0 {
		return nil, ErrNoTable
	}
	var rel *pg.Relation
	for _, r := range rows {
		if len(r) != 15 {
			return nil, fmt.Errorf("%d columns in the catalogue's answer", len(r))
		}
		if rel == nil {
			oid, err := parseOID(r[0])
			if err != nil {
				return nil, err
			}
			rel = &pg.Relation{OID: oid, Schema: string(r[1]), Name: string(r[2]), Kind: string(r[3]),
				ReplicaIdentity: string(r[4])}
		}
		if r[5] == nil {
			continue
		}
		typ, err := parseOID(r[6])
		if err != nil {
			return nil, err
		}
		rel.Columns = append(rel.Columns, pg.Column{
			Name: string(r[5]), Type: typ, Typmod: int32(number(r[7])), TypeName: string(r[8]), TypeSQL: string(r[9]),
			Dims: number(r[10]), NotNull: isTrue(r[11]), PK: number(r[12]), Generated: isTrue(r[13]),
			Collation: string(r[14]),
		})
	}
	return rel, nil
}

func parseOID(v []byte) (pg.OID, error) {
	n, err := strconv.ParseUint(string(v), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("object id: %w", err)
	}
	return pg.OID(n), nil
}

// isFull reports whether updates and deletes of the table carry the old row.
func isFull(identity []byte) bool { return string(identity) == "f" }

// tableName is how errors for clients write a table: unquoted, schema first.
func tableName(rel *pg.Relation) string { return rel.Schema + "." + rel.Name }

// quoted is a table for SQL.
func quoted(rel *pg.Relation) string { return shape.Table{Schema: rel.Schema, Name: rel.Name}.String() }
