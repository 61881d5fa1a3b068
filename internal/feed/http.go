package feed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shapeline/shapeline/internal/shape"
)

const (
	beatEvery    = time.Second
	silenceMax   = 5 * time.Second // without even a beat: the connection is dead
	writeTimeout = 10 * time.Second
	openTimeout  = 60 * time.Second // ingest has limits of its own, and says why

	definitionBytesMax = 1 << 20
	answerBytesMax     = 1 << 20

	feedPath   = "/v1/feed"
	shapesPath = "/v1/shapes"
)

// Shapes is what makes and ends shapes: ingest. Its errors are *shape.Refusal, or the context's.
type Shapes interface {
	Open(ctx context.Context, d shape.Definition) (shape.Handle, error)
	Drop(ctx context.Context, h shape.Handle) error
}

// Handler is ingest's end.
type Handler struct {
	Hub    *Hub
	Shapes Shapes
	Secret string          // that callers must know; "" lets everybody in
	Done   <-chan struct{} // closed when the process wants its connections to end
}

// Register adds h's paths to mux.
func (h *Handler) Register(mux *http.ServeMux) {
	mux.Handle("GET "+feedPath, h.guard(h.feed))
	mux.Handle("POST "+shapesPath, h.guard(h.open))
	mux.Handle("DELETE "+shapesPath+"/{handle}", h.guard(h.drop))
}

func (h *Handler) guard(f http.HandlerFunc) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + h.Secret))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if h.Secret != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			refuse(w, &shape.Refusal{Status: http.StatusUnauthorized, Message: "Unauthorized - Invalid API secret"})
			return
		}
		f(w, r)
	})
}

func refuse(w http.ResponseWriter, why *shape.Refusal) {
	w.Header().Set("Content-Type", "application/json")
	if why.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(why.RetryAfter))
	}
	w.WriteHeader(why.Status)
	_ = json.NewEncoder(w).Encode(why) // the caller may have gone
}

func (h *Handler) feed(w http.ResponseWriter, r *http.Request) {
	if after := r.URL.Query().Get("after"); after != "" {
		if _, err := strconv.ParseUint(after, 10, 64); err != nil {
			refuse(w, shape.Invalid("after", "must be the number of a segment"))
			return
		}
	}
	s, err := h.Hub.subscribe()
	if err != nil {
		refuse(w, shape.Unavailable(1, err.Error()))
		return
	}
	defer s.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	var buf []byte
	for {
		events, err := s.take()
		if err != nil {
			return
		}
		buf = buf[:0]
		for i := range events {
			buf = AppendEvent(buf, &events[i])
		}
		if len(buf) > 0 && write(w, control, buf) != nil {
			return
		}
		if cap(buf) > queueBytesMax/8 {
			buf = nil
		}
		select {
		case <-s.ready:
		case <-beat.C:
			if write(w, control, []byte{byte(Beat)}) != nil {
				return
			}
		case <-h.Done:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func write(w http.ResponseWriter, control *http.ResponseController, b []byte) error {
	if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return control.Flush()
}

// opened is the answer to a POST.
type opened struct {
	Handle shape.Handle `json:"handle"`
}

// idle answers for an ingest that is not the active one: its caller asks through the bucket, whoever is active there.
func (h *Handler) idle(w http.ResponseWriter) bool {
	if h.Hub.Active() {
		return false
	}
	http.Error(w, ErrNone.Error(), http.StatusServiceUnavailable)
	return true
}

func (h *Handler) open(w http.ResponseWriter, r *http.Request) {
	var d shape.Definition
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, definitionBytesMax))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil || d.Table.Name == "" {
		refuse(w, shape.Invalid("body", "must be the definition of a shape, as JSON"))
		return
	}
	if h.idle(w) {
		return
	}
	handle, err := h.Shapes.Open(r.Context(), d.Canonical())
	if err != nil {
		refuse(w, refusalOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(opened{handle})
}

func (h *Handler) drop(w http.ResponseWriter, r *http.Request) {
	handle, err := shape.ParseHandle(r.PathValue("handle"))
	if err != nil {
		refuse(w, shape.Invalid("handle", err.Error()))
		return
	}
	if h.idle(w) {
		return
	}
	if err := h.Shapes.Drop(r.Context(), handle); err != nil {
		refuse(w, refusalOf(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func refusalOf(err error) *shape.Refusal {
	var why *shape.Refusal
	if errors.As(err, &why) {
		return why
	}
	return shape.Unavailable(1, "Failed to create shape, please retry")
}

// Client is serve's end.
type Client struct {
	base   string
	secret string
	http   *http.Client
}

// NewClient returns a client of the ingest at base, a URL such as http://ingest:3001.
func NewClient(base, secret string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, errors.New("the URL of ingest must be like http://ingest:3001, without user or password: see --ingest-url")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 0
	t.DisableCompression = true
	return &Client{base: strings.TrimSuffix(u.String(), "/"), secret: secret, http: &http.Client{Transport: t}}, nil
}

// ErrUnreachable means that ingest gave no answer of its own: it may have done what was asked, or not.
var ErrUnreachable = errors.New("ingest cannot be reached")

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.secret != "" {
		req.Header.Set("Authorization", "Bearer "+c.secret)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errors.Join(ErrUnreachable, err)
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	why := &shape.Refusal{}
	if json.Unmarshal(b, why) != nil || why.Status != resp.StatusCode {
		return nil, fmt.Errorf("%s %s: status %d: %w", method, path, resp.StatusCode, ErrUnreachable)
	}
	if why.Status == http.StatusUnauthorized { // not the fault of whoever asked us
		return nil, fmt.Errorf("%s %s: ingest has another secret: %w", method, path, ErrUnreachable)
	}
	return nil, why
}

// Open asks ingest for the shape of d. The error is a *shape.Refusal, wraps ErrUnreachable, or is ctx's.
func (c *Client) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	body, err := json.Marshal(d)
	if err != nil {
		return shape.Handle{}, fmt.Errorf("encode definition: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, shapesPath, body)
	if err != nil {
		return shape.Handle{}, err
	}
	defer resp.Body.Close()
	var o opened
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&o); err != nil || o.Handle.IsZero() {
		return shape.Handle{}, errors.Join(ErrUnreachable, err)
	}
	return o.Handle, nil
}

// Drop asks ingest to end a shape. The error is as Open's.
func (c *Client) Drop(ctx context.Context, h shape.Handle) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodDelete, shapesPath+"/"+h.String(), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Subscribe connects to the feed. The caller closes the stream.
func (c *Client) Subscribe(ctx context.Context) (Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watchdog := time.AfterFunc(silenceMax, func() { cancel(errors.New("the feed is silent")) })
	resp, err := c.do(ctx, http.MethodGet, feedPath, nil)
	if err != nil {
		watchdog.Stop()
		cancel(nil)
		return nil, err
	}
	return &remote{resp: resp, r: bufio.NewReaderSize(resp.Body, 64<<10), watchdog: watchdog, ctx: ctx, cancel: cancel}, nil
}

// remote is a subscription over HTTP.
type remote struct {
	resp     *http.Response
	r        *bufio.Reader
	watchdog *time.Timer
	ctx      context.Context // of the connection
	cancel   context.CancelCauseFunc
}

// Next implements Stream. The connection ends with the context that it was subscribed with.
func (s *remote) Next(context.Context) (Event, error) {
	e, err := ReadEvent(s.r)
	if err != nil {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		return Event{}, fmt.Errorf("read the feed: %w", err)
	}
	s.watchdog.Reset(silenceMax)
	return e, nil
}

// Close implements Stream.
func (s *remote) Close() {
	s.watchdog.Stop()
	s.cancel(nil)
	_ = s.resp.Body.Close()
}
