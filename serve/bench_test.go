package serve

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/shape"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	status int
	n      int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(s int)   { d.status = s }
func (d *discard) Write(b []byte) (int, error) {
	d.n += len(b)
	return len(b), nil
}

// BenchmarkCatchUp answers a request for 1,000 entries that lie in 10 segments.
func BenchmarkCatchUp(b *testing.B) {
	p := newPlant(b, Config{})
	h := p.handle("items")
	for range 10 {
		p.commit(h, 100, false)
	}
	w := &discard{header: http.Header{}}
	r := newRequest(b, http.MethodGet, "/v1/shape?table=items&handle=1-0&offset=0_inf", "")
	p.s.ServeHTTP(w, r)
	b.SetBytes(int64(w.n))
	b.ReportAllocs()
	for b.Loop() {
		p.s.ServeHTTP(w, r)
	}
}

// BenchmarkRender makes the body of that answer.
func BenchmarkRender(b *testing.B) {
	p := newPlant(b, Config{})
	h := p.handle("items")
	for range 10 {
		p.commit(h, 100, false)
	}
	plan := p.plan(b, h)
	b.ReportAllocs()
	for b.Loop() {
		body, err := p.s.source.Entries(b.Context(), &plan, shape.SnapshotEnd, false)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(body)))
	}
}

func (p *plant) plan(tb testing.TB, h shape.Handle) catalog.Plan {
	tb.Helper()
	if err := p.s.sync(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	plan, ok := p.s.state.Plan(h, shape.SnapshotEnd)
	if !ok {
		tb.Fatal("no shape")
	}
	return plan
}

// BenchmarkWake1000 parks 1,000 requests, wakes them by one commit and waits until all are answered: the whole of
// both HTTP turns but the network.
func BenchmarkWake1000(b *testing.B) {
	const waiters = 1000
	p := newPlant(b, Config{})
	h := p.handle("items")
	plan := p.plan(b, h)
	r := newRequest(b, http.MethodGet, "/v1/shape?table=items&live&handle=1-0&offset=0_inf", "")
	b.ReportAllocs()
	var woken time.Duration
	for b.Loop() {
		query := "table=items&live&handle=1-0&offset=" + plan.Last.String()
		r.URL.RawQuery = query
		var group sync.WaitGroup
		for range waiters {
			group.Go(func() { p.s.ServeHTTP(&discard{header: http.Header{}}, r) })
		}
		for p.parked(h) < waiters {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		p.commit(h, 1, true)
		group.Wait()
		woken += time.Since(began)
		plan = p.plan(b, h)
	}
	b.ReportMetric(float64(woken.Microseconds())/float64(b.N), "wake-µs/op")
}

// parked counts those who wait for h.
func (p *plant) parked(h shape.Handle) int {
	p.s.waits.mu.Lock()
	defer p.s.waits.mu.Unlock()
	n := 0
	for _, g := range p.s.waits.groups[h.Shape] {
		n += g.members
	}
	return n
}

// TestRenderAllocs: entries are copied into one buffer, and nothing is allocated for each.
func TestRenderAllocs(t *testing.T) {
	p := newPlant(t, Config{})
	h := p.handle("items")
	for range 4 {
		p.commit(h, 1000, false)
	}
	plan := p.plan(t, h)
	n := testing.AllocsPerRun(10, func() {
		if _, err := p.s.source.Entries(t.Context(), &plan, shape.SnapshotEnd, false); err != nil {
			t.Fatal(err)
		}
	})
	if n > 60 { // the buffer's growth; a test of the machine would be a benchmark
		t.Errorf("%v allocations for 4,000 entries", n)
	}
}
