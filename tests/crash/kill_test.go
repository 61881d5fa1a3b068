package crash_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	roundsMin   = 5
	roundsScale = 30
	loadMax     = 30               // commits between two faults, at most
	pointMax    = 40 * time.Second // to reach a crash point under load; checkpoints are 10 s apart

	crashesInARow = 4 // before everybody is compared
)

func rounds() int {
	if scale() > 1 {
		return roundsScale
	}
	return roundsMin
}

// TestKillIngest kills ingest at random moments under load, every second time while a shape is being opened.
func TestKillIngest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	var slowest time.Duration
	for i := range rounds() {
		if i%2 == 1 {
			r.open(t)
		}
		r.load(t, loadMax)
		r.ingest.Kill()
		r.load(t, loadMax) // meanwhile the world goes on
		start := time.Now()
		r.ingest.Start()
		r.ingest.WaitActive()
		slowest = max(slowest, time.Since(start))
		r.converge(t, fmt.Sprintf("kill %d of ingest", i+1))
	}
	t.Logf("%d kills, %d commits, %d shapes; the slowest start took %s",
		rounds(), r.commits.Load(), len(r.shapes), slowest)
}

// TestKillServe kills serve at random moments under load.
func TestKillServe(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for i := range rounds() {
		r.load(t, loadMax)
		r.serve.Kill()
		r.load(t, loadMax)
		r.serve.Start()
		r.serve.WaitActive()
		r.converge(t, fmt.Sprintf("kill %d of serve", i+1))
	}
	t.Logf("%d kills, %d commits, %d shapes", rounds(), r.commits.Load(), len(r.shapes))
}

// pointsWanted are the points that the binary must name at least: before and after each kind of write to the bucket
// that it makes while it runs.
var pointsWanted = []string{
	"segment.put.before", "segment.put.after", "page.put.before", "page.put.after", "definition.put.before",
	"definition.put.after", "checkpoint.put.before", "checkpoint.put.after", "control.put.before", "control.put.after",
}

// pointName finds the points in a log; what the test of the bucket at the start writes is not among them.
var pointName = regexp.MustCompile(`crash-point ((?:segment|page|definition|checkpoint|control|requests)\.[a-z0-9.-]+)`)

// crash is one place to die: the k-th passing of a point.
type crash struct {
	point string
	k     int
}

// TestCrashPoints lets ingest kill itself at the points of the commit path, some times at the first passing and some
// times later, so that the next one, which has a point of its own to die at, finds what was left.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	names, passings := pointsWanted, 1
	r.ingest.Kill()
	if scale() > 1 {
		names, passings = r.pointNames(t), 5
	}
	var crashes []crash
	for i, name := range names {
		for n := range passings {
			k := 1 + (i+n)%3 + 5*(n/3)
			if slow(name) {
				k = 1 + n%2
			}
			if n == 0 || !slow(name) || n < 2 {
				crashes = append(crashes, crash{name, k})
			}
		}
	}
	for chain := range slices.Chunk(crashes, crashesInARow) {
		for _, c := range chain {
			r.crashAt(t, c)
		}
		q := r.newIngest(t, nil)
		q.WaitActive()
		r.converge(t, fmt.Sprintf("the crashes at %v", chain))
		q.Kill()
	}
	t.Logf("%d crashes, %d commits, %d shapes", len(crashes), r.commits.Load(), len(r.shapes))
}

// slow reports whether a point is passed once in ten seconds rather than all the time.
func slow(point string) bool {
	return strings.HasPrefix(point, "checkpoint.") || strings.HasPrefix(point, "control.")
}

// pointNames runs ingest under load, with a shape being opened, and collects the points that it prints.
func (r *rig) pointNames(t *testing.T) []string {
	p := r.newIngest(t, map[string]string{"SHAPELINE_CRASH_POINTS": "1"})
	p.WaitActive()
	r.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), pointMax)
	defer cancel()
	for _, want := range pointsWanted {
		if err := p.WaitLog(ctx, "crash-point "+want); err != nil {
			t.Error(err)
		}
	}
	r.converge(t, "the run that prints the points")
	p.Kill()
	names := slices.Clone(pointsWanted)
	for _, m := range pointName.FindAllStringSubmatch(p.Log(), -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}

// crashAt lets ingest die at c, under load and while shapes are opened.
func (r *rig) crashAt(t *testing.T, c crash) {
	p := r.newIngest(t, map[string]string{"SHAPELINE_CRASH_AT": fmt.Sprintf("%s:%d", c.point, c.k)})
	for range c.k {
		r.open(t) // some points are passed once for each shape
	}
	late := time.NewTimer(pointMax)
	defer late.Stop()
	select {
	case <-p.Exited():
		if err := p.Err(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("ingest ended before the point %s: %v", c.point, err)
		}
	case <-late.C:
		t.Errorf("point %s was not passed %d times within %s", c.point, c.k, pointMax)
	}
	p.Kill()
}
