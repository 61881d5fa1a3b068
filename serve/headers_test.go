package serve

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/shapeline/shapeline/serve/params"
)

// TestCaching is the table of the protocol reference, 4.5.
func TestCaching(t *testing.T) {
	s := New(Config{CacheMaxAge: time.Second, CacheStaleAge: 3 * time.Second})
	const first = "public, max-age=604800, s-maxage=3600, stale-while-revalidate=2629746"
	for _, c := range []struct {
		caching
		want, surrogate string
	}{
		{caching{method: "POST", status: 200}, "no-cache", ""},
		{caching{method: "POST", status: 409, handle: true}, "no-cache", ""},
		{caching{method: "DELETE", status: 202}, "no-cache", ""},
		{caching{method: "GET", status: 409, handle: true, live: true}, "public, max-age=60, must-revalidate", ""},
		{caching{method: "GET", status: 409}, "public, max-age=1, must-revalidate", ""},
		{caching{method: "GET", status: 400}, "no-store", "no-store"},
		{caching{method: "HEAD", status: 503}, "no-store", "no-store"},
		{caching{method: "GET", status: 200, first: true}, first, ""},
		{caching{method: "HEAD", status: 304, first: true}, first, ""},
		{caching{method: "GET", status: 200, live: true, sse: true}, "public, max-age=59", ""},
		{caching{method: "GET", status: 200, live: true}, "public, max-age=5, stale-while-revalidate=5", ""},
		{caching{method: "GET", status: 304, live: true}, "public, max-age=5, stale-while-revalidate=5", ""},
		{caching{method: "GET", status: 200}, "public, max-age=1, stale-while-revalidate=3", ""},
		{caching{method: "GET", status: 304}, "public, max-age=1, stale-while-revalidate=3", ""},
	} {
		h := http.Header{}
		s.setCaching(h, c.caching)
		if h.Get("Cache-Control") != c.want || h.Get("Surrogate-Control") != c.surrogate {
			t.Errorf("%+v: got %v", c.caching, h)
		}
	}
}

func TestCursor(t *testing.T) {
	epoch := time.Date(2024, 10, 9, 0, 0, 0, 0, time.UTC)
	s := New(Config{})
	for _, c := range []struct {
		after    time.Duration
		prev     string
		min, max uint64
	}{
		{0, "", 1, 3600}, // 0 is not behind what the client has
		{time.Millisecond, "", 1, 3600},
		{1 * time.Second, "", 20, 20},
		{20 * time.Second, "", 20, 20},
		{21 * time.Second, "20", 40, 40},
		{21 * time.Second, "abc", 40, 40},
		{21 * time.Second, "-7", 40, 40},
		{21 * time.Second, "99999999999999999999", 40, 40},
		{21 * time.Second, "9007199254740992", 40, 40},
		{21 * time.Second, "40", 41, 3640},
		{21 * time.Second, "1000", 1001, 4600},
		{-time.Hour, "", 1, 3600}, // a clock that is wrong
	} {
		got, err := strconv.ParseUint(s.cursor(params.ParseCursor(c.prev), epoch.Add(c.after)), 10, 64)
		if err != nil || got < c.min || got > c.max {
			t.Errorf("%v after the epoch, behind %q: got %d, want %d to %d", c.after, c.prev, got, c.min, c.max)
		}
	}
	if got := New(Config{LongPollTimeout: time.Millisecond}).cursor(5, epoch); got != "0" {
		t.Errorf("cursor %s for a short time-out", got)
	}
}

// TestCursorBuckets: whoever polls in the same interval sends the same URL.
func TestCursorBuckets(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("items")
		cursors := map[string]bool{}
		for range 10 {
			lsn := p.commit(p.handle("items"), 1, true)
			got := p.get("table=items&live=true&handle=1-0&cursor=&offset=" + strconv.FormatUint(uint64(lsn)-50, 10) + "_0")
			cursors[got.Header().Get("electric-cursor")] = true
			time.Sleep(time.Second)
		}
		if len(cursors) > 2 {
			t.Errorf("cursors %v", cursors)
		}
	})
}

func TestHeaderJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"id":{}}`:   `{"id":{}}`,
		`{"größe":1}`: `{"gr\u00f6\u00dfe":1}`,
		`{"𝄞":1}`:     `{"\ud834\udd1e":1}`,
	} {
		if got := headerJSON([]byte(in)); got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}
