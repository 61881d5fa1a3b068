package pgoutput

import (
	"fmt"

	"github.com/shapeline/shapeline/internal/pg"
)

// MalformedError says that a message is not what protocol version 1 allows, or does not fit the relations that came
// before it. Nothing after it can be trusted: reconnect, and read from the last confirmed position with a new Decoder.
type MalformedError struct {
	Kind   Kind   // zero for an empty message
	At     int    // the byte of the message at which decoding stopped
	Reason string // what is wrong there
}

// Error says where and why.
func (e *MalformedError) Error() string {
	return fmt.Sprintf("malformed replication message (%s, byte %d): %s", e.Kind, e.At, e.Reason)
}

// ReplicaIdentityError says that an update or delete came without the old row. Its table's replica identity is not,
// or was not at the time of the change, FULL: what was derived from the table's changes cannot be kept up to date.
type ReplicaIdentityError struct {
	Relation *pg.Relation
	Op       pg.Op
}

// Error names the table and the remedy.
func (e *ReplicaIdentityError) Error() string {
	return fmt.Sprintf("%s on table %q.%q came without the old row: run ALTER TABLE %[2]q.%[3]q REPLICA IDENTITY FULL",
		e.Op, e.Relation.Schema, e.Relation.Name)
}
