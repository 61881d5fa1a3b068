package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/params"
)

const mustRefetch = `[{"headers":{"control":"must-refetch"}}]`

// retrySeconds is how long a client whose request the bucket failed should wait.
const retrySeconds = 5

// failure is an answer that is not the one that was asked for, ready to be sent.
type failure struct {
	status     int
	body       []byte
	retryAfter int          // seconds; 0 is no header
	known      bool         // electric-internal-known-error
	handle     shape.Handle // 409: the handle to use instead; may be zero
}

// Error implements error.
func (f *failure) Error() string { return fmt.Sprintf("status %d: %s", f.status, f.body) }

// rotated is the failure of a request for a handle that is not, or no longer, the one of its definition.
func rotated(h shape.Handle) *failure {
	return &failure{status: http.StatusConflict, body: []byte(mustRefetch), handle: h}
}

// unavailable is the failure of a request that may succeed after some seconds.
func unavailable(retryAfter int, message string) *failure {
	return &failure{
		status: http.StatusServiceUnavailable, body: encode(map[string]string{"message": message}),
		retryAfter: retryAfter, known: true,
	}
}

// message is a failure whose body is one sentence.
func message(status int, text string) *failure {
	return &failure{status: status, body: encode(map[string]string{"message": text})}
}

// storeError marks the error of reading the bucket, which a retry may cure.
type storeError struct{ err error }

// Error implements error.
func (e storeError) Error() string { return e.err.Error() }

// Unwrap returns the store's own error.
func (e storeError) Unwrap() error { return e.err }

// failureOf maps err to what the client gets: the only place that does. What is not meant for the client is
// reported by the second result, for the log.
func failureOf(err error) (f *failure, hidden bool) {
	var wrong params.Invalid
	var refusal *shape.Refusal
	switch {
	case errors.As(err, &f):
		return f, false
	case errors.As(err, &wrong):
		return invalidRequest(wrong), false
	case errors.As(err, &refusal):
		return refused(refusal), false
	case errors.Is(err, body.ErrFull):
		return overloaded("Too many large answers are being read at the moment, please retry", retrySeconds), false
	case errors.Is(err, segment.ErrCorrupt), errors.Is(err, segment.ErrVersion):
		// What is damaged stays so: the client must not be told to come back soon.
	case errors.As(err, new(storeError)):
		return unavailable(retrySeconds, "The log cannot be read at the moment. Please try again later."), true
	case errors.Is(err, context.DeadlineExceeded):
		return unavailable(retrySeconds, "The request took too long. Please try again."), true
	}
	return &failure{
		status: http.StatusInternalServerError, body: encode(map[string]string{"error": "Internal server error"}),
	}, true
}

// overloaded is the failure of a request for which there is no room.
func overloaded(text string, retryAfter int) *failure {
	return &failure{
		status: http.StatusServiceUnavailable, retryAfter: retryAfter, known: true,
		body: encode(struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}{codeOverloaded, text}),
	}
}

// invalidRequest is the 400 of the protocol reference, 3.6.
func invalidRequest(wrong params.Invalid) *failure {
	return &failure{status: http.StatusBadRequest, body: encode(struct {
		Message string         `json:"message"`
		Errors  params.Invalid `json:"errors"`
	}{"Invalid request", wrong})}
}

// refused is the answer to a definition that gets no shape.
func refused(r *shape.Refusal) *failure {
	switch {
	case r.Status == http.StatusBadRequest && r.Field != "":
		return invalidRequest(params.Bad(r.Field, r.Texts...))
	case r.Status == http.StatusConflict:
		return rotated(shape.Handle{})
	case r.Status == http.StatusServiceUnavailable:
		return unavailable(max(r.RetryAfter, 1), r.Message)
	}
	f := message(r.Status, r.Message)
	if f.status < http.StatusBadRequest || f.status > 599 {
		f.status = http.StatusInternalServerError
	}
	return f
}

// encode returns v as JSON, with <, > and & as they are: the answer is no HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own types always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// fail answers r with err, and logs what the client is not told.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to read it
	}
	f, hidden := failureOf(err)
	if hidden {
		s.log.Error("request failed", "method", r.Method, "url", params.Redact(r.URL), "status", f.status, "err", err)
	}
	h := w.Header()
	h.Set("Content-Type", contentJSON)
	if !f.handle.IsZero() {
		h.Set("Electric-Handle", f.handle.String())
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	if f.known {
		h.Set("Electric-Internal-Known-Error", "true")
	}
	s.setCaching(h, caching{method: r.Method, status: f.status, handle: !f.handle.IsZero()})
	respond(w, f.status, f.body)
}
