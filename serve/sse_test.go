package serve

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// events is a ResponseWriter that shows what has been flushed so far.
type events struct {
	header http.Header
	done   chan struct{} // closed when the handler returns

	mu      sync.Mutex
	status  int
	pending strings.Builder
	flushed strings.Builder
}

func (e *events) Header() http.Header { return e.header }

func (e *events) WriteHeader(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = status
}

func (e *events) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pending.Write(b)
}

func (e *events) Flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flushed.WriteString(e.pending.String())
	e.pending.Reset()
}

// take waits until all is quiet, and returns what was flushed since the last call.
func (e *events) take() string {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.flushed.Reset()
	return e.flushed.String()
}

// sse opens a stream of items behind offset.
func (p *plant) sse(ctx context.Context, offset string) *events {
	e := &events{header: http.Header{}, done: make(chan struct{})}
	r := newRequest(p.tb, http.MethodGet, "/v1/shape?"+live+offset+"&live_sse=true&experimental_live_sse=true", "")
	go func() {
		defer close(e.done)
		p.s.ServeHTTP(e, r.WithContext(ctx))
	}()
	return e
}

func data(messages ...string) string {
	var b strings.Builder
	for _, m := range messages {
		b.WriteString("data: " + m + "\n\n")
	}
	return b.String()
}

func TestSSE(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		e := p.sse(t.Context(), "0_inf")
		if got := e.take(); got != "" || e.status != 200 {
			t.Fatalf("status %d, first bytes %q", e.status, got)
		}
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Connection": "keep-alive", "Cache-Control": "public, max-age=59",
			"Electric-Handle": "1-0", "Electric-Offset": "0_inf", "Etag": `"1-0:0_inf:0_inf"`, "Electric-Schema": "",
			"Content-Length": "",
		} {
			if got := e.header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if e.header.Get("Electric-Cursor") == "" || e.header["Electric-Up-To-Date"] == nil {
			t.Errorf("headers %v", e.header)
		}
		a := p.commit(h, 2, false)
		if got, want := e.take(), data(entry(a, 0, false), entry(a, 1, true), upToDate(a+1)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		b := p.commit(h, 1, true)
		if got, want := e.take(), data(entry(b, 0, true), upToDate(b+1)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		began := time.Now()
		time.Sleep(20 * time.Second)
		if got := e.take(); got != "" {
			t.Errorf("after 20 s: %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := e.take(); got != ": keep-alive\n\n" {
			t.Errorf("after 22 s: %q", got)
		}
		<-e.done
		if d := time.Since(began); d != 60*time.Second {
			t.Errorf("closed after %v", d)
		}
		checkEmpty(t, p)
	})
}

// TestSSEPending: what is there already is sent at once, chunk after chunk, and the stream stays open.
func TestSSEPending(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.pages = []string{`[{"n":0},{"n":1}]`, `[ {"n":2} ]`, snapshotEnd}
		h := p.handle("items")
		a, b := p.commit(h, 1, true), p.commit(h, 1, false)
		p.plan(t, h) // so that the server knows of both
		e := p.sse(t.Context(), "0_0")
		end := snapshotEnd[1 : len(snapshotEnd)-1]
		if got, want := e.take(), data(`{"n":2}`, end, entry(a, 0, true), entry(b, 0, true), upToDate(b+1)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := e.header.Get("Electric-Offset"); got != "0_1" || e.header["Electric-Up-To-Date"] != nil {
			t.Errorf("headers %v", e.header)
		}
		c := p.commit(h, 1, false)
		if got, want := e.take(), data(entry(c, 0, true), upToDate(c+1)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestSSEResume: the offset that a client makes of the last LSN lies behind all that it has read, and asking there
// neither repeats nor skips nor counts as out of bounds.
func TestSSEResume(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		a := p.commit(h, 3, false)
		resumed := fmt.Sprintf("%d_0", a+1)
		e := p.sse(t.Context(), resumed)
		if got := e.take(); got != "" || e.header.Get("Electric-Offset") != resumed {
			t.Errorf("got %q at %v", got, e.header)
		}
		b := p.commit(h, 1, false)
		if got, want := e.take(), data(entry(b, 0, true), upToDate(b+1)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		poll := later(func() answered { return p.get(live + fmt.Sprintf("%d_0", b+1)) })
		c := p.commit(h, 1, false)
		expect(t, <-poll, 200, "["+entry(c, 0, true)+","+upToDate(c)+"]", "electric-offset", fmt.Sprintf("%d_0", c))
		// What the reference's own LSN leads to is a lower bound like any other.
		e = p.sse(t.Context(), fmt.Sprintf("%d_0", a))
		want := data(entry(a, 1, false), entry(a, 2, true), entry(b, 0, true), entry(c, 0, true), upToDate(c+1))
		if got := e.take(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestSSEEnds(t *testing.T) {
	for name, end := range map[string]func(p *plant, cancel func()){
		"dropped":      func(p *plant, _ func()) { p.drop(shape.Handle{Shape: 1}, nil) },
		"drained":      func(p *plant, _ func()) { p.s.Drain() },
		"disconnected": func(_ *plant, cancel func()) { cancel() },
	} {
		bubble(t, Config{}, func(t *testing.T, p *plant) {
			p.handle("items")
			began := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := p.sse(ctx, "0_inf")
			synctest.Wait()
			end(p, cancel)
			<-e.done
			if d := time.Since(began); d != 0 || e.take() != "" {
				t.Errorf("%s: ended after %v", name, d)
			}
			checkEmpty(t, p)
		})
	}
}

// TestSSEWaitsForPages: a base in the making is streamed page by page.
func TestSSEWaitsForPages(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.late = true
		h := shape.Handle{Shape: 1}
		first := later(func() answered { return p.get("table=items&offset=-1") })
		time.Sleep(time.Second)
		p.page(h, 0, `[{"n":0}]`)
		<-first
		e := p.sse(t.Context(), "0_0")
		p.page(h, 1, `[{"n":1}]`)
		time.Sleep(time.Second)
		if got := e.take(); got != data(`{"n":1}`) {
			t.Errorf("got %q", got)
		}
		p.page(h, 2, `[{"n":2}]`)
		time.Sleep(time.Second)
		if got := e.take(); got != data(`{"n":2}`) {
			t.Errorf("got %q", got)
		}
		p.put(segment.Frame{Records: []segment.Record{catalog.ReadyRecord(1, catalog.Base{Pages: 3})}})
		lsn := p.commit(h, 1, false)
		if got := e.take(); got != data(entry(lsn, 0, true), upToDate(lsn+1)) {
			t.Errorf("got %q", got)
		}
	})
}

// TestSSEErrors: before the stream begins an error is an ordinary answer.
func TestSSEErrors(t *testing.T) {
	p := newPlant(t, Config{LongPollTimeout: 2 * time.Millisecond})
	p.handle("items")
	expect(t, p.get("table=items&handle=2-0&offset=0_0&live&live_sse=true"), 409, mustRefetch, "electric-handle", "1-0",
		"content-type", contentJSON)
	expect(t, p.get("table=items&handle=1-0&offset=9999_0&live&live_sse=true"), 400,
		`{"message":"Invalid request","errors":{"offset":["out of bounds for this shape"]}}`, "content-type", contentJSON)
	head := p.do("HEAD", "/v1/shape?table=items&handle=1-0&offset=0_inf&live&live_sse=true", "")
	expect(t, head, 200, "", "content-type", contentEvents, "electric-offset", "0_inf")
}
