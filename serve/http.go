package serve

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/shapeline/shapeline/serve/params"
)

const (
	// urlBytesMax is far above what clients send and below what net/http takes.
	urlBytesMax = 64 << 10

	// bodyBytesMax bounds the body of a POST, of which the first postBytesMax are looked at: more can only be a subset.
	bodyBytesMax = 8_000_000
	postBytesMax = 64 << 10

	requestIDMin, requestIDMax = 20, 200

	exposedHeaders = "electric-cursor,electric-handle,electric-has-data,electric-offset,electric-schema," +
		"electric-up-to-date,electric-internal-known-error,retry-after"
)

// route is a path that means something.
type route int

const (
	routeNone route = iota
	routeRoot
	routeShape
	routeHealth
)

// match finds the route of a path, whose empty segments do not count and whose others are decoded. Whatever depends
// on the route, authentication first, asks here.
func match(u *url.URL) route {
	var segments [3]string
	n := 0
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		if part == "" {
			continue
		}
		name, err := url.PathUnescape(part)
		if err != nil || n == len(segments) {
			return routeNone
		}
		segments[n] = name
		n++
	}
	switch {
	case n == 0 && strings.HasPrefix(u.Path, "/"):
		return routeRoot
	case n == 2 && segments[0] == "v1" && segments[1] == "shape":
		return routeShape
	case n == 2 && segments[0] == "v1" && segments[1] == "health":
		return routeHealth
	}
	return routeNone
}

// ServeHTTP implements http.Handler for the paths /, /v1/shape and /v1/health.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, at := w.Header(), match(r.URL)
	h.Set("Electric-Server", s.name)
	h.Set("X-Request-Id", requestID(r))
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	h.Set("Access-Control-Allow-Methods", "GET, HEAD")
	if at == routeShape {
		h.Set("Access-Control-Allow-Methods", "GET, POST, HEAD, DELETE, OPTIONS")
	}
	h.Set("Cache-Control", cacheDefault)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case len(r.RequestURI) > urlBytesMax:
		h.Set("Content-Type", contentText)
		respond(w, http.StatusRequestURITooLong, []byte("Request-URI Too Long"))
	case at == routeRoot && reads:
		respond(w, http.StatusOK)
	case at == routeHealth && reads:
		s.serveHealth(w)
	case at == routeShape && r.Method == http.MethodOptions:
		preflight(w, r)
	case at == routeShape && (reads || r.Method == http.MethodPost || r.Method == http.MethodDelete):
		s.serveRoute(w, r)
	default:
		h.Set("Content-Type", contentText)
		respond(w, http.StatusNotFound, []byte("Not found"))
	}
}

// requestID returns the client's own id for the request if it is usable, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	usable := len(id) >= requestIDMin && len(id) <= requestIDMax
	for i := 0; usable && i < len(id); i++ {
		usable = id[i] > ' ' && id[i] < 0x7f
	}
	if usable {
		return id
	}
	return rand.Text()
}

// allowedHeaders are the request headers that a browser may send.
var allowedHeaders = []string{"authorization", "cache-control", "content-type", "if-none-match", "traceparent"}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Del("Cache-Control")
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Connection", "keep-alive")
	var allowed []string
	for name := range strings.SplitSeq(strings.ToLower(r.Header.Get("Access-Control-Request-Headers")), ",") {
		if name = strings.TrimSpace(name); slices.Contains(allowedHeaders, name) {
			allowed = append(allowed, name)
		}
	}
	if allowed != nil {
		h.Set("Access-Control-Allow-Headers", strings.Join(allowed, ","))
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveHealth(w http.ResponseWriter) {
	status, text := http.StatusAccepted, "starting"
	switch ready, waiting, _ := s.Health(); {
	case ready:
		status, text = http.StatusOK, "active"
	case waiting:
		text = "waiting"
	}
	w.Header().Set("Content-Type", contentJSON)
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
	respond(w, status, []byte(`{"status":"`+text+`"}`))
}

// serveRoute is the shape route behind the secret.
func (s *Server) serveRoute(w http.ResponseWriter, r *http.Request) {
	q := params.Decode(r.URL.RawQuery)
	if !s.authorized(q.Secret()) {
		w.Header().Set("Content-Type", contentJSON)
		respond(w, http.StatusUnauthorized, []byte(`{"message":"Unauthorized - Invalid API secret"}`))
		return
	}
	if r.Method == http.MethodDelete {
		if err := s.serveDelete(w, r, q); err != nil {
			s.fail(w, r, err)
		}
		return
	}
	if err := s.serveRead(w, r, q); err != nil {
		s.fail(w, r, err)
	}
}

// authorized compares in a time that tells nothing about the secret, its length included.
func (s *Server) authorized(secret string) bool {
	if s.cfg.Secret == "" {
		return true
	}
	got, want := sha256.Sum256([]byte(secret)), sha256.Sum256([]byte(s.cfg.Secret))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// serveRead is GET, HEAD and POST of the shape route, in the order of the protocol reference, 2.9.
func (s *Server) serveRead(w http.ResponseWriter, r *http.Request, q *params.Query) error {
	p, err := s.admit(q)
	if err != nil {
		return err
	}
	defer p.leave()
	if r.Method == http.MethodPost {
		if err := readPost(w, r, q); err != nil {
			return err
		}
	}
	if err := s.awaitLoaded(r.Context()); err != nil {
		return err
	}
	req, err := params.Parse(q)
	if err != nil {
		return err
	}
	return s.serveShape(w, r, req, p)
}

// subsetKeys are the members of a body that make a POST a subset request.
var subsetKeys = []string{"subset", "where", "order_by", "limit", "offset", "params", "where_expr", "order_by_expr"}

// readPost reads the body of a POST and notes in q whether it asks for a subset. Other members mean nothing: a body
// must not change what a proxy has allowed by the URL.
func readPost(w http.ResponseWriter, r *http.Request, q *params.Query) error {
	limited := http.MaxBytesReader(w, r.Body, bodyBytesMax)
	body, err := io.ReadAll(io.LimitReader(limited, postBytesMax+1))
	if err == nil && len(body) > postBytesMax {
		q.Subset = true
		_, err = io.Copy(io.Discard, limited)
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return jsonError(http.StatusRequestEntityTooLarge, "Request body too large")
	case err != nil:
		return jsonError(http.StatusBadRequest, "Failed to read request body")
	case q.Subset || len(body) == 0:
		return nil
	case !json.Valid(body):
		return jsonError(http.StatusBadRequest, "Invalid JSON in request body")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return jsonError(http.StatusBadRequest, "Request body must be a JSON object")
	}
	for _, key := range subsetKeys {
		_, ok := members[key]
		q.Subset = q.Subset || ok
	}
	return nil
}

func jsonError(status int, text string) *failure {
	return &failure{status: status, body: encode(map[string]string{"error": text})}
}
