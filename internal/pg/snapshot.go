package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// Snapshot is what pg_current_snapshot() prints: which transactions a query could see. Its ids are full 64-bit
// ones: Xmin the lowest still active, Xmax the first not yet assigned, Xip the active ones between, ascending.
type Snapshot struct {
	Xmin uint64   `json:"xmin"`
	Xmax uint64   `json:"xmax"`
	Xip  []uint64 `json:"xip,omitempty"`
}

// ParseSnapshot reads the text form of a pg_snapshot, for example 800:805:801,803.
func ParseSnapshot(s string) (Snapshot, error) {
	bad := fmt.Errorf("snapshot %q is not of the form xmin:xmax:xip,xip", s)
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return Snapshot{}, bad
	}
	var snap Snapshot
	var err error
	if snap.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return Snapshot{}, bad
	}
	if snap.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil || snap.Xmax < snap.Xmin {
		return Snapshot{}, bad
	}
	if parts[2] != "" {
		for _, p := range strings.Split(parts[2], ",") {
			x, err := strconv.ParseUint(p, 10, 64)
			if err != nil || x < snap.Xmin || x >= snap.Xmax || len(snap.Xip) > 0 && x <= snap.Xip[len(snap.Xip)-1] {
				return Snapshot{}, bad
			}
			snap.Xip = append(snap.Xip, x)
		}
	}
	if snap.String() != s {
		return Snapshot{}, bad
	}
	return snap, nil
}

// String prints s as Postgres does.
func (s Snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:", s.Xmin, s.Xmax)
	for i, x := range s.Xip {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(x, 10))
	}
	return b.String()
}

// Sees reports whether the effects of committed transaction x are in the snapshot. x is compared modulo 2^32.
func (s Snapshot) Sees(x XID) bool {
	if x.Before(XID(s.Xmin)) {
		return true
	}
	if s.Passed(x) {
		return false
	}
	for _, p := range s.Xip {
		if XID(p) == x {
			return false
		}
	}
	return true
}

// Passed reports whether x was not yet assigned when the snapshot was taken. In commit order no transaction
// after such a one is in the snapshot.
func (s Snapshot) Passed(x XID) bool { return !x.Before(XID(s.Xmax)) }
