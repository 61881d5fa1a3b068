package serve

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// TestHappyPath walks the minimal path of the protocol reference, section 1.
func TestHappyPath(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		const schema = `{"id":{"type":"int8","pk_index":0}}`
		expect(t, p.get("table=items&offset=-1"), 200, snapshotEnd,
			"electric-handle", "1-0", "electric-offset", "0_0", "electric-up-to-date", "-", "electric-has-data", "true",
			"electric-schema", schema, "electric-cursor", "-", "etag", `"1-0:-1:0_0"`,
			"content-type", "application/json; charset=utf-8",
			"cache-control", "public, max-age=604800, s-maxage=3600, stale-while-revalidate=2629746")
		expect(t, p.get("table=items&offset=0_0&handle=1-0"), 200, "["+upToDate(1000)+"]",
			"electric-handle", "1-0", "electric-offset", "0_inf", "electric-up-to-date", "", "electric-has-data", "true",
			"electric-schema", schema, "etag", `"1-0:0_0:0_inf"`,
			"cache-control", "public, max-age=60, stale-while-revalidate=300")

		answer := later(func() answered { return p.get("table=items&offset=0_inf&handle=1-0&live=true&cursor=") })
		synctest.Wait()
		lsn := p.commit(shape.Handle{Shape: 1}, 2, false)
		expect(t, <-answer, 200, "["+entry(lsn, 0, false)+","+entry(lsn, 1, true)+","+upToDate(lsn)+"]",
			"electric-handle", "1-0", "electric-offset", fmt.Sprintf("%d_2", lsn), "electric-up-to-date", "",
			"electric-has-data", "true", "electric-schema", "-",
			"cache-control", "public, max-age=5, stale-while-revalidate=5")
		if p.opens != 1 {
			t.Errorf("%d shapes opened", p.opens)
		}
	})
}

func TestPages(t *testing.T) {
	p := newPlant(t, Config{})
	p.pages = []string{`[{"n":0}]`, `[{"n":1}]`, snapshotEnd}
	h := p.handle("items")
	expect(t, p.get("table=items&offset=-1"), 200, `[{"n":0}]`, "electric-offset", "0_0", "electric-up-to-date", "-")
	q := "table=items&handle=" + h.String() + "&offset="
	expect(t, p.get(q+"0_0"), 200, `[{"n":1}]`, "electric-offset", "0_1", "electric-up-to-date", "-")
	expect(t, p.get(q+"0_01"), 200, snapshotEnd, "electric-offset", "0_2", "etag", `"1-0:0_1:0_2"`)
	expect(t, p.get(q+"0_2"), 200, "["+upToDate(1000)+"]", "electric-offset", "0_inf")
	expect(t, p.get(q+"0_18446744073709551614"), 200, "["+upToDate(1000)+"]", "electric-offset", "0_inf")
	expect(t, p.get(q+"0_0&live=true"), 200, `[{"n":1}]`, "electric-offset", "0_1", "electric-schema", "-")
}

// TestChunks: an answer ends at the end of the chunk that follows its offset, and closed chunks never change.
func TestChunks(t *testing.T) {
	p := newPlant(t, Config{})
	h := p.handle("items")
	a, b := p.commit(h, 1, false), p.commit(h, 2, true)
	c := p.commit(h, 1, false)
	q := "table=items&handle=1-0&offset="
	first := "[" + entry(a, 0, true) + "," + entry(b, 0, false) + "," + entry(b, 1, true) + "]"
	for range 2 {
		expect(t, p.get(q+"0_inf"), 200, first, "electric-offset", fmt.Sprintf("%d_2", b), "electric-up-to-date", "-")
		c = p.commit(h, 1, false)
	}
	tail := "[" + entry(c-100, 0, true) + "," + entry(c, 0, true) + "," + upToDate(c) + "]"
	tail = strings.Replace(tail, "[", "["+entry(c-200, 0, true)+",", 1)
	expect(t, p.get(q+fmt.Sprintf("%d_2", b)), 200, tail, "electric-up-to-date", "")
	// Offsets are lower bounds: one that no entry ever had does as well.
	expect(t, p.get(q+fmt.Sprintf("%d_7", b+1)), 200, tail)
	expect(t, p.get(q+fmt.Sprintf("%d_1", b)), 200,
		"["+entry(b, 1, true)+"]", "electric-offset", fmt.Sprintf("%d_2", b), "electric-up-to-date", "-")
	// A live request with something to read is answered at once.
	expect(t, p.get(q+"0_inf&live"), 200, first, "electric-schema", "-")
}

// TestIdleShape: the LSN goes on when other tables change.
func TestIdleShape(t *testing.T) {
	p := newPlant(t, Config{})
	p.handle("items")
	other := p.handle("others")
	lsn := p.commit(other, 1, false)
	expect(t, p.get("table=items&handle=1-0&offset=0_inf"), 200, "["+upToDate(lsn)+"]", "electric-offset", "0_inf")
}

func TestOffsetNow(t *testing.T) {
	p := newPlant(t, Config{})
	expect(t, p.get("table=items&offset=now"), 200, "["+upToDate(1000)+"]", "electric-offset", "0_inf",
		"electric-up-to-date", "", "electric-has-data", "false",
		"electric-schema", `{"id":{"type":"int8","pk_index":0}}`,
		"cache-control", "public, max-age=60, stale-while-revalidate=300")
	lsn := p.commit(shape.Handle{Shape: 1}, 1, false)
	got := p.get("table=items&offset=now&handle=ignored")
	expect(t, got, 200, "["+upToDate(lsn)+"]", "electric-offset", fmt.Sprintf("%d_0", lsn))
	if tag := got.Header().Get("etag"); !strings.HasPrefix(tag, fmt.Sprintf(`"1-0:now:%d_0:`, lsn)) {
		t.Errorf("etag %s is not unique", tag)
	}
}

// TestOutOfBounds: an offset that the log has not reached is waited for, half the time of a long poll.
func TestOutOfBounds(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		const wrong = `{"message":"Invalid request","errors":{"offset":["out of bounds for this shape"]}}`
		began := time.Now()
		expect(t, p.get("table=items&handle=1-0&offset=2000_0"), 400, wrong, "cache-control", "no-store",
			"surrogate-control", "no-store")
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("waited %v", d)
		}
		answer := later(func() answered { return p.get("table=items&handle=1-0&offset=1100_0") })
		time.Sleep(time.Second)
		lsn := p.commit(h, 1, false)
		expect(t, <-answer, 200, "["+upToDate(lsn)+"]", "electric-offset", "1100_0")
		// Behind the last entry, but not behind what has been read of Postgres: see reached.
		for _, offset := range []string{"1100_2", "1100_inf", "1101_0"} {
			expect(t, p.get("table=items&handle=1-0&offset="+offset), 200, "["+upToDate(lsn)+"]", "electric-offset", offset)
		}
		next := p.commit(h, 1, false)
		expect(t, p.get("table=items&handle=1-0&offset=1101_0"), 200, "["+entry(next, 0, true)+","+upToDate(next)+"]")
	})
}

func TestRevalidation(t *testing.T) {
	p := newPlant(t, Config{})
	h := p.handle("items")
	p.commit(h, 3, false)
	for _, q := range []string{"-1", "0_0&handle=1-0", "1099_0&handle=1-0", "1100_inf&handle=1-0"} {
		q = "table=items&offset=" + q
		first := p.get(q)
		tag := first.Header().Get("etag")
		for _, sent := range []string{tag, "W/" + tag, `"x", ` + tag, strings.Trim(tag, `"`)} {
			expect(t, p.get(q, "If-None-Match", sent), 304, "", "electric-schema", "-", "etag", tag,
				"electric-handle", "1-0", "electric-offset", first.Header().Get("electric-offset"),
				"cache-control", first.Header().Get("cache-control"))
		}
		expect(t, p.get(q, "If-None-Match", `"x"`), 200, first.Body.String())
	}
	tag := p.get("table=items&offset=0_0&handle=1-0").Header().Get("etag")
	first := p.get("table=items&offset=-1").Header().Get("etag")
	p.commit(h, 1, false)
	if got := p.get("table=items&offset=0_0&handle=1-0", "If-None-Match", tag); got.Code != 200 {
		t.Errorf("status %d although the log has grown", got.Code)
	}
	if got := p.get("table=items&offset=-1").Header().Get("etag"); got != first {
		t.Errorf("etag of the first page became %s", got)
	}
}

// TestBaseInTheMaking: pages are served as they come, and offsets do not run ahead of them.
func TestBaseInTheMaking(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.late = true
		h := shape.Handle{Shape: 1}
		page := func(q string) <-chan answered {
			c := later(func() answered { return p.get("table=items&" + q) })
			time.Sleep(time.Second)
			return c
		}
		first := page("offset=-1")
		p.page(h, 0, `[{"n":0}]`)
		expect(t, <-first, 200, `[{"n":0}]`, "electric-offset", "0_0")

		second, same := page("offset=0_0&handle=1-0"), page("offset=0_0&handle=1-0")
		p.page(h, 1, snapshotEnd)
		expect(t, <-second, 200, snapshotEnd, "electric-offset", "0_1", "electric-up-to-date", "-")
		expect(t, <-same, 200, snapshotEnd)

		third := page("offset=0_1&handle=1-0")
		p.put(segment.Frame{Records: []segment.Record{catalog.ReadyRecord(1, catalog.Base{Pages: 2})}})
		expect(t, <-third, 200, "["+upToDate(1000)+"]", "electric-offset", "0_inf", "electric-up-to-date", "")
	})
}

func TestBaseFails(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.late = true
		answer := later(func() answered { return p.get("table=items&offset=-1") })
		time.Sleep(time.Second)
		p.drop(shape.Handle{Shape: 1}, shape.Unavailable(10, "permission denied"))
		expect(t, <-answer, 503, `{"message":"permission denied"}`, "retry-after", "10",
			"electric-internal-known-error", "true", "cache-control", "no-store")

		began := time.Now()
		got := p.get("table=items&offset=-1")
		if d := time.Since(began); d != 45*time.Second || got.Code != 503 {
			t.Errorf("after %v: %d %s", d, got.Code, got.Body)
		}
	})
}

// TestRotation: a 409 names the shape to use instead, which it creates, and never a dead one.
func TestRotation(t *testing.T) {
	p := newPlant(t, Config{AllowDelete: true})
	h := p.handle("items")
	const body = `[{"headers":{"control":"must-refetch"}}]`
	for _, handle := range []string{"x", "2-0", "1-1", "01-0"} {
		expect(t, p.get("table=items&offset=0_0&handle="+handle), 409, body, "electric-handle", "1-0",
			"electric-offset", "-", "cache-control", "public, max-age=60, must-revalidate")
	}
	expect(t, p.get("table=others&offset=0_0&handle=1-0"), 409, body, "electric-handle", "2-0")
	p.drop(h, nil)
	expect(t, p.get("table=items&offset=0_0&handle=1-0"), 409, body, "electric-handle", "3-0")
	expect(t, p.get("table=items&offset=-1&handle=1-0"), 200, snapshotEnd, "electric-handle", "3-0")
	if p.opens != 3 {
		t.Errorf("%d shapes opened", p.opens)
	}
}

// TestLostSegment: what the bucket does not give is a failure before the first byte, never half an answer.
func TestLostSegment(t *testing.T) {
	p := newPlant(t, Config{SegmentBytes: 1})
	h := p.handle("items")
	p.commit(h, 1, false)
	if err := p.s.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.store.Delete(t.Context(), shapelog.SegmentKey(p.log.Next()-1)); err != nil {
		t.Fatal(err)
	}
	got := p.get("table=items&offset=0_inf&handle=1-0")
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("electric-offset") != "" {
		t.Errorf("%d %v %s", got.Code, got.Header(), got.Body)
	}
}

func TestReached(t *testing.T) {
	for _, c := range []struct {
		offset string
		want   bool
	}{{"100_5", true}, {"101_0", true}, {"101_inf", true}, {"102_0", false}} {
		o, err := shape.ParseOffset(c.offset)
		if err != nil || reached(o, 100) != c.want {
			t.Errorf("%s: %v", c.offset, err)
		}
	}
}
