package pg

// Relation describes a table. The replication stream fills OID, names, ReplicaIdentity and of each column Name,
// Type and Typmod; the rest comes from the catalogue.
type Relation struct {
	OID             OID      `json:"oid"`
	Schema          string   `json:"schema"`
	Name            string   `json:"name"`
	Kind            string   `json:"kind,omitempty"` // pg_class.relkind: "r" ordinary, "p" partitioned
	ReplicaIdentity string   `json:"replident,omitempty"`
	Columns         []Column `json:"columns"`
}

// Column describes one column, in attnum order and without dropped ones.
type Column struct {
	Name      string `json:"name"`
	Type      OID    `json:"type"`                // pg_type.oid, the array type for arrays
	Typmod    int32  `json:"typmod"`              // pg_attribute.atttypmod; -1 is none
	TypeName  string `json:"typname,omitempty"`   // pg_type.typname; the element's for arrays
	TypeSQL   string `json:"typsql,omitempty"`    // format_type(oid, typmod): how SQL writes the type
	Dims      int    `json:"dims,omitempty"`      // pg_attribute.attndims; 0 for what is not an array
	NotNull   bool   `json:"not_null,omitempty"`  // pg_attribute.attnotnull
	PK        int    `json:"pk,omitempty"`        // 1-based place in the primary key, in index order; 0 is none
	Generated bool   `json:"generated,omitempty"` // pg_attribute.attgenerated is not empty
	Collation string `json:"collation,omitempty"` // see Column.Deterministic
}

// Deterministic reports whether equality of the column's values is equality of their bytes. Collation holds
// "nondeterministic" for the others.
func (c Column) Deterministic() bool { return c.Collation != "nondeterministic" }

// Index returns the place of the column called name, or -1.
func (r *Relation) Index(name string) int {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// Key returns the places of the columns that identify a row: the primary key in index order or, without one,
// all columns in column order.
func (r *Relation) Key() []int {
	var pk []int
	for i := range r.Columns {
		if r.Columns[i].PK > 0 {
			pk = append(pk, i)
		}
	}
	if len(pk) == 0 {
		for i := range r.Columns {
			pk = append(pk, i)
		}
		return pk
	}
	key := make([]int, len(pk))
	for _, i := range pk {
		key[r.Columns[i].PK-1] = i
	}
	return key
}

// HasPK reports whether the table has a primary key.
func (r *Relation) HasPK() bool {
	for i := range r.Columns {
		if r.Columns[i].PK > 0 {
			return true
		}
	}
	return false
}

// SameRows reports whether rows of o can be read with r's columns: same table, same name, same columns by name
// and type. It compares just what the replication stream describes.
func (r *Relation) SameRows(o *Relation) bool {
	if r.OID != o.OID || r.Schema != o.Schema || r.Name != o.Name || len(r.Columns) != len(o.Columns) {
		return false
	}
	for i := range r.Columns {
		if r.Columns[i].Name != o.Columns[i].Name || r.Columns[i].Type != o.Columns[i].Type {
			return false
		}
	}
	return true
}
