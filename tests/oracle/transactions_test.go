package oracle_test

import (
	"testing"

	"github.com/shapeline/shapeline/tests/oracle"
)

// TestTransactionsWork runs the generator against Postgres alone: if most transactions failed, or the shapes stayed
// empty, the other tests would show little.
func TestTransactionsWork(t *testing.T) {
	w := newDatabase(t)
	var sessions []*oracle.Session
	for lane := range sessionsMax {
		sessions = append(sessions, w.session(t, lane, sessionsMax))
	}
	const ends = 400
	commits, writes, newest, reordered := 0, 0, uint32(0), 0
	for n := 0; n < ends; {
		s := sessions[w.rand.IntN(len(sessions))]
		done, err := s.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Idle() {
			n++
		}
		if done == nil {
			continue
		}
		commits++
		if done.XID == 0 {
			continue
		}
		writes++
		if done.XID < newest {
			reordered++
		}
		newest = max(newest, done.XID)
	}
	t.Logf("of %d transactions %d committed, %d wrote, %d after one with a greater id", ends, commits, writes, reordered)
	if commits < ends/3 || writes < ends/4 || reordered < ends/20 {
		t.Error("too few")
	}
	shapes := oracle.Shapes()
	full := 0
	for i, st := range w.states(t, shapes) {
		t.Logf("%s holds %d rows", shapes[i].Name, len(st.Rows))
		if len(st.Rows) > 0 {
			full++
		}
	}
	if full < len(shapes)*2/3 {
		t.Errorf("only %d of %d shapes hold rows", full, len(shapes))
	}
}
