package crash_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	stoppedFor      = 8 * time.Second // 60 s with SHAPELINE_TEST_SCALE
	stoppedForScale = 60 * time.Second
	stoppedRSSMax   = 64 << 20 // by which ingest's peak memory may grow meanwhile
)

// TestStoreStopped stops a MinIO under load as SIGSTOP does. Meanwhile health says so, memory stays flat and WAL waits in
// Postgres; afterwards everything drains and every client is right.
func TestStoreStopped(t *testing.T) {
	t.Parallel()
	harness.Require(t)
	store := harness.OwnStore(t, harness.MinIO)
	env := make(map[string]string)
	for _, pair := range store.Env() {
		key, value, _ := strings.Cut(pair, "=")
		env[key] = value
	}
	r := newRigIn(t, store.URL(store.NewBucket(t)), env)
	r.load(t, loadMax)
	before := r.ingest.PeakRSS()
	if err := store.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.notice(t)
	t.Logf("noticed after %s", time.Since(began).Round(time.Millisecond))
	long := stoppedFor
	if scale() > 1 {
		long = stoppedForScale
	}
	for time.Since(began) < long {
		r.load(t, loadMax)
	}
	held := r.held(t)
	if err := store.Resume(); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	r.ingest.WaitActive()
	r.converge(t, "the stopped store")
	after := r.ingest.PeakRSS()
	t.Logf("stopped for %s, Postgres held %d KiB of WAL; everything right %s later; ingest's peak RSS %d MiB, before %d MiB",
		resumed.Sub(began).Round(time.Millisecond), held>>10, time.Since(resumed).Round(time.Millisecond), after>>20, before>>20)
	if held == 0 {
		t.Error("Postgres held no WAL back")
	}
	if after > before+stoppedRSSMax {
		t.Errorf("ingest's peak RSS went from %d to %d MiB", before>>20, after>>20)
	}
}

// held is how much WAL the slot holds back.
func (r *rig) held(t *testing.T) (bytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
	defer cancel()
	err := r.db.Connect(t).QueryRow(ctx,
		"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots").Scan(&bytes)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
