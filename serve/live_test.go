package serve

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/shape"
)

const live = "table=items&live=true&handle=1-0&offset="

func TestLongPollTimeout(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("items")
		other := p.handle("others")
		began := time.Now()
		answer := later(func() answered { return p.get(live + "0_0&cursor=") })
		time.Sleep(time.Second)
		lsn := p.commit(other, 1, false)
		got := <-answer
		if d := time.Since(began); d != 20*time.Second {
			t.Errorf("waited %v", d)
		}
		expect(t, got, 200, "["+upToDate(lsn)+"]", "electric-offset", "0_0", "electric-up-to-date", "",
			"electric-has-data", "false", "electric-schema", "-", "electric-handle", "1-0",
			"cache-control", "public, max-age=5, stale-while-revalidate=5")
		if tag := got.Header().Get("etag"); !strings.HasPrefix(tag, `"1-0:0_0:0_0:`) {
			t.Errorf("etag %s is not unique", tag)
		}
		checkEmpty(t, p)
	})
}

// checkEmpty: nothing is left of requests that have ended (R7).
func checkEmpty(t *testing.T, p *plant) {
	t.Helper()
	synctest.Wait()
	p.s.waits.mu.Lock()
	defer p.s.waits.mu.Unlock()
	if n := len(p.s.waits.groups); n != 0 {
		t.Errorf("%d shapes still have waiters", n)
	}
	if n := p.s.watchers.Load(); n != 0 {
		t.Errorf("%d watchers left", n)
	}
	if a, b := p.s.initial.now.Load(), p.s.existing.now.Load(); a != 0 || b != 0 {
		t.Errorf("%d and %d permits left", a, b)
	}
	if n := p.s.shelf.InUse(); n != 0 {
		t.Errorf("%d bodies are still held", n)
	}
}

func TestParkedRotation(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		answer := later(func() answered { return p.get(live + "0_inf") })
		synctest.Wait()
		p.drop(h, nil)
		expect(t, <-answer, 409, mustRefetch, "electric-handle", "-", "cache-control", "public, max-age=1, must-revalidate")
		checkEmpty(t, p)
	})
}

// TestParkedReload: a state loaded from a checkpoint may lack shapes that somebody waits for.
func TestParkedReload(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("items")
		answer := later(func() answered { return p.get(live + "0_inf") })
		synctest.Wait()
		if err := p.s.state.Load(t.Context(), p.store, 0, 0); err != nil {
			t.Fatal(err)
		}
		p.s.changed(&catalog.Delta{}, true)
		expect(t, <-answer, 409, mustRefetch)
	})
}

func TestDisconnect(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		gone := later(func() answered {
			w := httptest.NewRecorder()
			r := newRequest(t, http.MethodGet, "/v1/shape?"+live+"0_inf", "")
			p.s.ServeHTTP(w, r.WithContext(ctx))
			return w
		})
		stays := later(func() answered { return p.get(live + "0_inf") })
		synctest.Wait()
		cancel()
		<-gone
		if d := time.Since(began); d != 0 {
			t.Errorf("released after %v", d)
		}
		lsn := p.commit(h, 1, false)
		expect(t, <-stays, 200, "["+entry(lsn, 0, true)+","+upToDate(lsn)+"]")
		checkEmpty(t, p)
	})
}

func TestDrain(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("items")
		began := time.Now()
		parked := later(func() answered { return p.get(live + "0_inf") })
		synctest.Wait()
		p.s.Drain()
		p.s.Drain()
		for _, got := range []answered{<-parked, p.get(live + "0_inf")} {
			expect(t, got, 200, "["+upToDate(1000)+"]", "electric-offset", "0_inf", "electric-has-data", "false")
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("drained after %v", d)
		}
	})
}

func TestPipelineDown(t *testing.T) {
	var down atomic.Bool
	health := func() (ready, waiting bool, reason string) {
		return !down.Load(), false, "Timeout waiting for Postgres lock acquisition"
	}
	bubble(t, Config{Health: health}, func(t *testing.T, p *plant) {
		p.handle("items")
		down.Store(true)
		expect(t, p.get(live+"0_inf"), 503, `{"message":"Timeout waiting for Postgres lock acquisition"}`,
			"retry-after", "10")
		expect(t, p.get("table=items&offset=-1"), 200, snapshotEnd)
	})
}

// TestOneBody: however many wait for the same, it is made once.
func TestOneBody(t *testing.T) {
	const waiters = 1000
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		before := p.s.shelf.Fills()
		var answers []<-chan answered
		for range waiters {
			answers = append(answers, later(func() answered { return p.get(live + "0_inf") }))
		}
		synctest.Wait()
		if n := len(p.s.waits.groups[h.Shape]); n != 1 {
			t.Errorf("%d groups", n)
		}
		lsn := p.commit(h, 10, false)
		first := (<-answers[0]).Body.String()
		if !strings.HasSuffix(first, upToDate(lsn)+"]") {
			t.Errorf("got %s", first)
		}
		for _, a := range answers[1:] {
			if got := <-a; got.Body.String() != first {
				t.Fatalf("got %s, want %s", got.Body, first)
			}
		}
		if n := p.s.shelf.Fills() - before; n != 1 {
			t.Errorf("%d bodies made for %d waiters", n, waiters)
		}
		checkEmpty(t, p)
	})
}

// TestHammer: clients that come, go and follow while shapes grow, are dropped and come again lose no entry, see none
// twice, and never see an offset ahead of the body.
func TestHammer(t *testing.T) {
	const clients, commits = 16, 300
	p := newPlant(t, Config{LongPollTimeout: 50 * time.Millisecond, BodyBytes: 64 << 10, SegmentBytes: 16 << 10})
	h := p.handle("items")
	var last atomic.Uint64
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			at, seen := shape.SnapshotEnd.String(), 0
			for seen < commits {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if i%4 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rand.IntN(20))*time.Millisecond)
				}
				mode := []string{"&live", ""}[(seen+i)%2]
				w := httptest.NewRecorder()
				r := newRequest(t, http.MethodGet, "/v1/shape?table=items&handle=1-0&offset="+at+mode, "")
				p.s.ServeHTTP(w, r.WithContext(ctx))
				cancel()
				if w.Header().Get("electric-offset") == "" {
					continue // cancelled
				}
				if w.Code != 200 {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
				n := strings.Count(w.Body.String(), `"key":`)
				seen += n
				at = w.Header().Get("electric-offset")
				if want := fmt.Sprintf(`{"key":"%s"`, at); n > 0 && !strings.Contains(w.Body.String(), want) {
					t.Errorf("offset %s is not in its body", at)
				}
			}
			if want := fmt.Sprintf("%d_0", last.Load()); seen != commits || at != want {
				t.Errorf("client %d read %d entries up to %s, want %d up to %s", i, seen, at, commits, want)
			}
		})
	}
	group.Go(func() {
		for i := range commits {
			if i == commits-1 {
				last.Store(uint64(p.visible) + 100)
			}
			p.commit(h, 1, i%10 == 0)
		}
	})
	group.Wait()
}
