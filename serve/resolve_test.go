package serve

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/shape"
)

// TestRefusals: what the Opener refuses reaches the client as the protocol has it.
func TestRefusals(t *testing.T) {
	p := newPlant(t, Config{})
	for _, c := range []struct {
		refusal *shape.Refusal
		status  int
		body    string
		retry   string
		known   string
	}{
		{shape.Invalid("where", `At location 17: syntax error at or near "x"`), 400,
			`{"message":"Invalid request","errors":{"where":["At location 17: syntax error at or near \"x\""]}}`, "-", "-"},
		{shape.Unavailable(10, "Database table is <gone>"), 503, `{"message":"Database table is <gone>"}`, "10", "true"},
		{&shape.Refusal{Status: 409}, 409, mustRefetch, "-", "-"},
		{&shape.Refusal{Status: 500, Message: "Unexpected error"}, 500, `{"message":"Unexpected error"}`, "-", "-"},
		{&shape.Refusal{Message: "no status"}, 500, `{"message":"no status"}`, "-", "-"},
	} {
		p.refuse = c.refusal
		for _, q := range []string{"table=items&where=1%20x%201&offset=-1", "table=items&offset=0_0&handle=1-0"} {
			expect(t, p.get(q), c.status, c.body, "retry-after", c.retry, "electric-internal-known-error", c.known,
				"electric-handle", "-", "content-type", contentJSON)
		}
	}
	p.refuse = errors.New("secret detail")
	expect(t, p.get("table=items&offset=-1"), 500, `{"error":"Internal server error"}`, "cache-control", "no-store")
}

// slowOpener holds every Open until it is told.
type slowOpener struct {
	Opener
	gate chan struct{}
}

func (o *slowOpener) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	select {
	case <-o.gate:
		return o.Opener.Open(ctx, d)
	case <-ctx.Done():
		return shape.Handle{}, ctx.Err()
	}
}

// TestOneOpen: those who ask for one definition share one Open, and who leaves does not take it away.
func TestOneOpen(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		slow := &slowOpener{p, make(chan struct{})}
		p.s.opener = slow
		ctx, cancel := context.WithCancel(t.Context())
		left := later(func() answered {
			w := httptest.NewRecorder()
			r := newRequest(t, http.MethodGet, "/v1/shape?table=items&offset=-1", "")
			p.s.ServeHTTP(w, r.WithContext(ctx))
			return w
		})
		synctest.Wait()
		var rest []<-chan answered
		for range 20 {
			rest = append(rest, later(func() answered { return p.get("offset=-1&table=public.items&columns=") }))
		}
		synctest.Wait()
		cancel()
		<-left
		close(slow.gate)
		for _, c := range rest {
			expect(t, <-c, 200, snapshotEnd, "electric-handle", "1-0")
		}
		if p.opens != 1 {
			t.Errorf("%d Opens", p.opens)
		}
	})
}

// deadOpener opens shapes that are dropped at once.
type deadOpener struct{ *plant }

func (o deadOpener) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	h, err := o.plant.Open(ctx, d)
	o.drop(h, nil)
	return h, err
}

func TestOpenedForNothing(t *testing.T) {
	p := newPlant(t, Config{})
	p.s.opener = deadOpener{p}
	expect(t, p.get("table=items&offset=-1"), 503, `{"message":"Failed to create shape, please retry"}`,
		"retry-after", "1")
	if p.opens != openTries {
		t.Errorf("%d Opens", p.opens)
	}
}

// TestOtherProcess: a handle that this process has not heard of may be one that another has just made.
func TestOtherProcess(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("others")
		wakes := p.s
		p.s = New(Config{}) // so that nobody tells the server
		h, err := p.Open(t.Context(), definition("items"))
		p.s = wakes
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := p.get("table=items&live=true&offset=0_inf&handle=" + h.String())
		expect(t, got, 200, "["+upToDate(1000)+"]")
		if d := time.Since(began); d != 20*time.Second {
			t.Errorf("parked for %v", d)
		}
	})
}
