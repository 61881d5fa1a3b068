package serve

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/serve/params"
)

var shapePaths = []string{
	"/v1/shape", "/v1/shape/", "/v1//shape", "//v1/shape", "/v1/shape//", "/v1/%73hape", "/%76%31/shape",
	"///v1///shape///",
}

// TestSecret: every path that reaches shapes asks for the secret, with every method but OPTIONS.
func TestSecret(t *testing.T) {
	const unauthorized = `{"message":"Unauthorized - Invalid API secret"}`
	p := newPlant(t, Config{Secret: "s3cret", AllowDelete: true})
	open := newPlant(t, Config{})
	for _, path := range shapePaths {
		target := path + "?table=items&offset=-1"
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			for _, secret := range []string{
				"", "&secret=", "&secret=S3cret", "&api_secret=x", "&secret=x&api_secret=s3cret", "&secret[x]=s3cret",
			} {
				expect(t, p.do(method, target+secret, ""), 401, unauthorized, "cache-control", cacheDefault,
					"content-type", contentJSON, "access-control-allow-origin", "*",
					"access-control-allow-methods", "GET, POST, HEAD, DELETE, OPTIONS", "electric-server", "Shapeline/dev")
			}
		}
		for _, secret := range []string{
			"&secret=s3cret", "&api_secret=s3cret", "&%73ecret=s3cret", "&secret=x&secret=s3cret",
		} {
			expect(t, p.do("GET", target+secret, ""), 200, snapshotEnd)
		}
		expect(t, open.do("GET", target, ""), 200, snapshotEnd)
		expect(t, p.do("OPTIONS", path, ""), 204, "")
	}
	expect(t, p.do("GET", "/", ""), 200, "")
	expect(t, p.do("GET", "/v1/health", ""), 200, `{"status":"active"}`)
}

func TestRoutes(t *testing.T) {
	p := newPlant(t, Config{Version: "1.2"})
	p.handle("items")
	const notFound = "Not found"
	for _, c := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/", 200, ""},
		{"HEAD", "//", 200, ""},
		{"POST", "/", 404, notFound},
		{"OPTIONS", "/", 404, notFound},
		{"GET", "/v1", 404, notFound},
		{"GET", "/v1/shapes", 404, notFound},
		{"GET", "/v1%2Fshape", 404, notFound},
		{"GET", "/v1/shape/x", 404, notFound},
		{"GET", "/v1/./shape", 404, notFound},
		{"GET", "/a/b/c/d/e", 404, notFound},
		{"PUT", "/v1/shape", 404, notFound},
		{"PATCH", "/v1/shape", 404, notFound},
		{"POST", "/v1/health", 404, notFound},
		{"GET", "/v1/health/", 200, `{"status":"active"}`},
		{"GET", "/v1/shape?" + strings.Repeat("x", urlBytesMax), 414, "Request-URI Too Long"},
		{"DELETE", "/v1/shape?table=items", 405, `{"message":"DELETE not allowed"}`},
	} {
		got := p.do(c.method, c.target, "")
		methods := "GET, HEAD"
		if strings.HasPrefix(c.target, "/v1/shape") && c.target != "/v1/shape/x" && c.target != "/v1/shapes" {
			methods = "GET, POST, HEAD, DELETE, OPTIONS"
		}
		expect(t, got, c.status, c.body, "access-control-allow-origin", "*", "access-control-allow-methods", methods,
			"access-control-expose-headers", exposedHeaders, "electric-server", "Shapeline/1.2")
		if t.Failed() {
			t.Fatalf("%s %.40s", c.method, c.target)
		}
	}
}

func TestRequestID(t *testing.T) {
	p := newPlant(t, Config{})
	const good = "0123456789-abcdefghij"
	for sent, echoed := range map[string]bool{
		good: true, "short": false, good + "\x01": false, strings.Repeat("x", 201): false,
	} {
		got := p.do("GET", "/", "", "X-Request-Id", sent).Header().Get("x-request-id")
		if (got == sent) != echoed || len(got) < requestIDMin {
			t.Errorf("%q is answered by %q", sent, got)
		}
	}
}

func TestPreflight(t *testing.T) {
	p := newPlant(t, Config{Secret: "s"})
	for asked, allowed := range map[string]string{
		"":                                  "-",
		"If-None-Match":                     "if-none-match",
		"content-type, X-Other,traceparent": "content-type,traceparent",
		"Authorization,Cache-Control":       "authorization,cache-control",
		"x-y":                               "-",
	} {
		expect(t, p.do("OPTIONS", "/v1/shape", "", "Access-Control-Request-Headers", asked), 204, "",
			"access-control-allow-headers", allowed, "access-control-max-age", "86400", "connection", "keep-alive",
			"cache-control", "-", "access-control-allow-origin", "*", "access-control-expose-headers", exposedHeaders)
	}
}

// TestHead: HEAD has every header that GET has.
func TestHead(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.commit(p.handle("items"), 3, false)
		for _, target := range []string{
			"/", "/v1/health", "/v1/shape?table=items&offset=-1", "/v1/shape?table=items&offset=0_0&handle=1-0",
			"/v1/shape?table=items&offset=now", "/v1/shape?table=items&offset=0_0&handle=1-0&live", "/v1/shape", "/nothing",
			"/v1/shape?table=items&offset=0_0&handle=9-9",
		} {
			get, head := p.do("GET", target, "").Header(), p.do("HEAD", target, "").Header()
			get.Del("X-Request-Id")
			head.Del("X-Request-Id")
			if !maps.EqualFunc(get, head, func(a, b []string) bool { return strings.Join(a, ",") == strings.Join(b, ",") }) {
				t.Errorf("%s: HEAD %v\nGET %v", target, head, get)
			}
		}
	})
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		ready, waiting bool
		status         int
		body           string
	}{
		{true, false, 200, `{"status":"active"}`},
		{false, true, 202, `{"status":"waiting"}`},
		{false, false, 202, `{"status":"starting"}`},
	} {
		p := newPlant(t, Config{Health: func() (bool, bool, string) { return c.ready, c.waiting, "" }})
		p.handle("items") // waits for the log
		expect(t, p.do("GET", "/v1/health", ""), c.status, c.body, "content-type", contentJSON,
			"cache-control", "no-cache, no-store, must-revalidate")
	}
	s := New(Config{})
	if ready, waiting, reason := s.Health(); ready || waiting || reason == "" {
		t.Errorf("healthy before it runs: %v %v %q", ready, waiting, reason)
	}
}

// TestNotLoaded: a server whose log is not there yet is asked to wait.
func TestNotLoaded(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		began := time.Now()
		s := New(Config{Store: p.store, Opener: p})
		p.s, s = s, p.s
		got := p.get("table=items&offset=-1")
		p.s = s
		expect(t, got, 503, `{"message":"Timeout waiting for shape data to be loaded"}`, "retry-after", "5",
			"electric-internal-known-error", "true", "cache-control", "no-store", "surrogate-control", "no-store")
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("waited %v", d)
		}
	})
}

func TestPost(t *testing.T) {
	p := newPlant(t, Config{})
	const target = "/v1/shape?table=items&offset=-1"
	subset := `{"message":"Invalid request","errors":{"subset":["` + params.TextSubset + `"]}}`
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{"", 200, snapshotEnd},
		{"{}", 200, snapshotEnd},
		{`{"table":"others"}`, 200, snapshotEnd},
		{`{"where":"true"}`, 400, subset},
		{`{"subset":{}}`, 400, subset},
		{`{"limit":null}`, 400, subset},
		{`{`, 400, `{"error":"Invalid JSON in request body"}`},
		{`[]`, 400, `{"error":"Request body must be a JSON object"}`},
		{`null`, 400, `{"error":"Request body must be a JSON object"}`},
		{strings.Repeat("x", postBytesMax+1), 400, subset},
		{strings.Repeat("x", bodyBytesMax+1), 413, `{"error":"Request body too large"}`},
	} {
		expect(t, p.do(http.MethodPost, target, c.body), c.status, c.want, "cache-control", "no-cache")
		if t.Failed() {
			t.Fatalf("body %.40s", c.body)
		}
	}
	if got := p.get("table=items&offset=-1").Header().Get("electric-handle"); got != "1-0" || p.opens != 1 {
		t.Errorf("a body changed the shape: %s", got)
	}
}

func TestAdmission(t *testing.T) {
	bubble(t, Config{MaxInitial: 1, MaxExisting: 2}, func(t *testing.T, p *plant) {
		p.handle("items")
		full := func(kind, limit string) string {
			return `{"code":"concurrent_request_limit_exceeded","message":"Concurrent ` + kind +
				` request limit exceeded (limit: ` + limit + `), please retry"}`
		}
		p.late = true
		first := later(func() answered { return p.get("table=others&offset=-1") })
		a := later(func() answered { return p.get(live + "0_inf") })
		time.Sleep(time.Second)
		// The first request has its shape by now, and both wait as existing ones.
		got := p.get(live + "0_inf")
		expect(t, got, 503, full("existing", "2"), "electric-internal-known-error", "true", "cache-control", "no-store",
			"surrogate-control", "no-store")
		if after := got.Header().Get("retry-after"); after < "6" && after != "10" || len(after) > 2 {
			t.Errorf("retry-after %s", after)
		}
		second := later(func() answered { return p.get("table=others&offset=-1&handle=9-9") })
		time.Sleep(time.Second)
		expect(t, p.get("table=others&offset=-1"), 503, full("initial", "1"))
		<-first
		<-second
		<-a
		checkEmpty(t, p)
	})
}

func TestDelete(t *testing.T) {
	bubble(t, Config{AllowDelete: true}, func(t *testing.T, p *plant) {
		p.handle("items")
		p.handle("others")
		del := func(query string) answered { return p.do("DELETE", "/v1/shape?"+query, "") }
		const none = `{"message":"No existing shape found"}`
		const invalid = `{"message":"Invalid request","errors":`
		expect(t, del(""), 400, invalid+`{"handle":["can't be blank when shape definition is missing"]}}`,
			"cache-control", "no-cache")
		expect(t, del("handle=9-9"), 404, none)
		expect(t, del("handle=x"), 404, none)
		expect(t, del("table=unknown"), 404, none)
		expect(t, del("table=items&where=x"), 404, none)
		expect(t, del("table=a.b"), 404, none)
		expect(t, del("table=a."), 400, invalid+`{"table":["Invalid zero-length delimited identifier"]}}`)
		expect(t, del("table=items&live=banana"), 400, invalid+`{"live":["is invalid"]}}`)
		expect(t, del("table=items&handle=2-0"), 400,
			`{"message":"The specified shape definition and handle do not match. Please ensure the shape definition is `+
				`correct or omit the shape handle from the request to obtain a new one."}`)

		parked := later(func() answered { return p.get(live + "0_inf") })
		time.Sleep(time.Second)
		expect(t, del("table=items"), 202, "", "cache-control", "no-cache")
		expect(t, <-parked, 409, mustRefetch)
		expect(t, p.get("table=items&offset=0_0&handle=1-0"), 409, mustRefetch, "electric-handle", "3-0")
		expect(t, del("handle=2-0"), 202, "")
		expect(t, del("handle=2-0"), 404, none)
		expect(t, del("table=items&handle=3-0"), 202, "")
	})
	bubble(t, Config{AllowDelete: true, Health: func() (bool, bool, string) { return false, true, "no lock" }},
		func(t *testing.T, p *plant) {
			expect(t, p.do("DELETE", "/v1/shape?table=items", ""), 503, `{"message":"no lock"}`, "retry-after", "5")
		})
}
