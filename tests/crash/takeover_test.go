package crash_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	takeoverMax  = 10 * time.Second // from the loss of the working ingest until the other one works
	takeoverRuns = 2                // there and back
	settleMax    = 15 * time.Second // for one that wakes up to find that it has been replaced
)

// pair is two ingests on one database and bucket: one works, the other waits.
type pair struct {
	*rig
	works, waits *harness.Process
}

func newPair(t *testing.T) *pair {
	r := newRig(t, "")
	p := &pair{r, r.ingest, r.newIngest(t, nil)}
	p.mustWait(t, p.waits)
	return p
}

// mustWait waits until q says that it waits, with the status that probes go by.
func (p *pair) mustWait(t *testing.T, q *harness.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleMax)
	defer cancel()
	if err := q.Wait(ctx, "waiting"); err != nil {
		t.Fatal(err)
	}
	if code, status, err := q.Health(ctx); err != nil || code != 202 || status != "waiting" {
		t.Fatalf("the health of the second ingest is %d %s, %v", code, status, err)
	}
}

// taken waits until the second one works, and swaps the roles.
func (p *pair) taken(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleMax)
	defer cancel()
	if err := p.waits.Wait(ctx, "active"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(since)
	if took > takeoverMax {
		t.Errorf("the takeover took %s", took)
	}
	p.works, p.waits = p.waits, p.works
	return took
}

// TestTakeoverKill kills the working ingest again and again; the other one takes over, and the killed one comes back
// to wait.
func TestTakeoverKill(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range takeoverRuns * scale() {
		p.load(t, loadMax)
		p.works.Kill()
		took := p.taken(t, time.Now())
		p.converge(t, fmt.Sprintf("takeover %d", i+1))
		t.Logf("takeover %d from a killed ingest: %s", i+1, took.Round(time.Millisecond))
		p.waits.Start()
		p.mustWait(t, p.waits)
	}
}

// TestTakeoverPause stops the working ingest where it stands, as a suspended machine would be, and wakes it up when
// the other one has taken over. What it still believes must do no harm.
func TestTakeoverPause(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i := range takeoverRuns * scale() {
		p.load(t, loadMax)
		p.works.Pause()
		took := p.taken(t, time.Now())
		t.Logf("takeover %d from a stopped ingest: %s", i+1, took.Round(time.Millisecond))
		p.load(t, loadMax)
		p.waits.Resume()
		p.load(t, loadMax)
		p.converge(t, fmt.Sprintf("the return of the stopped ingest, takeover %d", i+1))
		p.settle(t)
		p.converge(t, fmt.Sprintf("takeover %d", i+1))
	}
}

// settle waits until the woken ingest waits or has ended; then it is started again. The working one must go on
// working.
func (p *pair) settle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(settleMax)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, status, err := p.waits.Health(ctx)
		cancel()
		if err == nil && status == "waiting" {
			break
		}
		if ended(p.waits) {
			t.Logf("the woken ingest ended: %v", p.waits.Err())
			p.waits.Start()
			p.mustWait(t, p.waits)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the woken ingest neither waits nor ends: %q, %v", status, err)
		}
		time.Sleep(healthPoll)
	}
	ctx, cancel := context.WithTimeout(t.Context(), settleMax)
	defer cancel()
	if err := p.works.Wait(ctx, "active"); err != nil {
		t.Fatal(err)
	}
}

func ended(p *harness.Process) bool {
	select {
	case <-p.Exited():
		return true
	default:
		return false
	}
}
