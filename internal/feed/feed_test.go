package feed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

var sample = segment.AppendFrame(nil, &segment.Frame{Visible: 10, End: 11, Messages: []segment.Message{{Offset: shape.At(10, 0), Body: []byte("{")}}})

// TestWire: the bytes of every kind of event, and that they come back.
func TestWire(t *testing.T) {
	events := []feed.Event{
		{Kind: feed.Hello, Seq: 7, Epoch: 3}, {Kind: feed.Frame, Seq: 7, Frame: sample}, {Kind: feed.Durable, Seq: 7}, {Kind: feed.Beat},
	}
	var b []byte
	for i := range events {
		b = feed.AppendEvent(b, &events[i])
	}
	golden := "H\a\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00F\a\x00\x00\x00\x00\x00\x00\x00" + string(sample) +
		"D\a\x00\x00\x00\x00\x00\x00\x00B"
	if string(b) != golden {
		t.Errorf("bytes are %q", b)
	}
	r := bytes.NewReader(b)
	for i := range events {
		if e, err := feed.ReadEvent(r); err != nil || !reflect.DeepEqual(e, events[i]) {
			t.Errorf("event %d came back as %+v, %v", i, e, err)
		}
	}
	if _, err := feed.ReadEvent(r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for cut := range b {
		r := bytes.NewReader(b[:cut])
		for {
			_, err := feed.ReadEvent(r)
			if err == nil {
				continue
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut at %d: %v", cut, err)
			}
			break
		}
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add(append([]byte("F\x01\x00\x00\x00\x00\x00\x00\x00"), sample...))
	f.Add([]byte("H1234567812345678"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := feed.ReadEvent(bytes.NewReader(b))
		if err != nil {
			return
		}
		if got := feed.AppendEvent(nil, &e); !bytes.HasPrefix(b, got) {
			t.Errorf("%q came back as %q", b, got)
		}
	})
}

func next(t *testing.T, s feed.Stream) feed.Event {
	t.Helper()
	e, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestHub: a subscription begins with the next whole segment, and ends with the term.
func TestHub(t *testing.T) {
	var h feed.Hub
	if _, err := h.Subscribe(t.Context()); !errors.Is(err, feed.ErrNone) || h.Active() {
		t.Errorf("without a term: %v", err)
	}
	h.Begin(3, 5)
	whole, err := h.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	h.Publish(5, sample)
	late, err := h.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Publish(5, sample)
	h.Durable(5)
	h.Publish(6, sample)
	for _, want := range []feed.Event{
		{Kind: feed.Hello, Seq: 5, Epoch: 3}, {Kind: feed.Frame, Seq: 5, Frame: sample}, {Kind: feed.Frame, Seq: 5, Frame: sample},
		{Kind: feed.Durable, Seq: 5}, {Kind: feed.Frame, Seq: 6, Frame: sample},
	} {
		if e := next(t, whole); !reflect.DeepEqual(e, want) {
			t.Errorf("got %+v, want %+v", e, want)
		}
	}
	for _, want := range []feed.Event{
		{Kind: feed.Hello, Seq: 6, Epoch: 3}, {Kind: feed.Durable, Seq: 5}, {Kind: feed.Frame, Seq: 6, Frame: sample},
	} {
		if e := next(t, late); !reflect.DeepEqual(e, want) {
			t.Errorf("late: got %+v, want %+v", e, want)
		}
	}
	late.Close()
	if h.Subscribers() != 1 {
		t.Errorf("%d subscribers", h.Subscribers())
	}
	h.End()
	if _, err := whole.Next(t.Context()); !errors.Is(err, feed.ErrEnded) || h.Subscribers() != 0 {
		t.Errorf("after the term: %v, %d subscribers", err, h.Subscribers())
	}
}

// TestSlow: what waits for a subscriber is bounded, and so is a frame.
func TestSlow(t *testing.T) {
	var h feed.Hub
	h.Begin(1, 1)
	subscribe := func() feed.Stream {
		s, err := h.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	slow, big := subscribe(), make([]byte, 8<<20)
	for range 5 {
		h.Publish(1, big)
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, feed.ErrSlow) || h.Subscribers() != 0 {
		t.Errorf("%v, %d subscribers", err, h.Subscribers())
	}
	huge := subscribe()
	h.Publish(2, make([]byte, 17<<20))
	if _, err := huge.Next(t.Context()); !errors.Is(err, feed.ErrSlow) {
		t.Error(err)
	}
}

// TestBeat: silence is told from death.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h feed.Hub
		h.Begin(1, 1)
		s, err := h.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		next(t, s)
		if e := next(t, s); e.Kind != feed.Beat {
			t.Errorf("got %+v", e)
		}
	})
}

// shapes is an ingest that knows one table.
type shapes struct{ dropped shape.Handle }

func (s *shapes) Open(_ context.Context, d shape.Definition) (shape.Handle, error) {
	if d.Table.Name != "items" {
		return shape.Handle{}, shape.Invalid("table", "does not exist")
	}
	return shape.Handle{Shape: 9}, nil
}

func (s *shapes) Drop(_ context.Context, h shape.Handle) error {
	s.dropped = h
	return nil
}

func TestHTTP(t *testing.T) {
	hub, ingest, done := &feed.Hub{}, &shapes{}, make(chan struct{})
	mux := http.NewServeMux()
	h := feed.Handler{Hub: hub, Shapes: ingest, Secret: "s3cret", Done: done}
	h.Register(mux)
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(done)
	client := func(secret string) *feed.Client {
		c, err := feed.NewClient(server.URL, secret)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	items := shape.Definition{Table: shape.Table{Schema: "public", Name: "items"}}.Canonical()
	c := client("s3cret")
	if _, err := c.Open(t.Context(), items); !errors.Is(err, feed.ErrUnreachable) {
		t.Errorf("an ingest that is not active: %v", err)
	}
	if _, err := c.Subscribe(t.Context()); err == nil {
		t.Error("a feed of an ingest that is not active")
	}
	hub.Begin(2, 4)
	if handle, err := c.Open(t.Context(), items); err != nil || handle.Shape != 9 {
		t.Errorf("open: %v, %v", handle, err)
	}
	var why *shape.Refusal
	if _, err := c.Open(t.Context(), shape.Definition{Table: shape.Table{Name: "x"}}); !errors.As(err, &why) || why.Status != 400 || why.Field != "table" {
		t.Errorf("refused: %v", err)
	}
	if err := c.Drop(t.Context(), shape.Handle{Shape: 9}); err != nil || ingest.dropped.Shape != 9 {
		t.Errorf("drop: %v, %v", err, ingest.dropped)
	}
	for _, secret := range []string{"", "wrong"} {
		bad := client(secret)
		_, serr := bad.Subscribe(t.Context())
		_, oerr := bad.Open(t.Context(), items)
		if !errors.Is(serr, feed.ErrUnreachable) || !errors.Is(oerr, feed.ErrUnreachable) || strings.Contains(serr.Error(), "s3cret") {
			t.Errorf("secret %q: %v, %v", secret, serr, oerr)
		}
	}
	s, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if e := next(t, s); e.Kind != feed.Hello || e.Seq != 4 || e.Epoch != 2 {
		t.Errorf("hello %+v", e)
	}
	hub.Publish(4, sample)
	for e := next(t, s); ; e = next(t, s) {
		if e.Kind == feed.Beat {
			continue
		}
		if e.Kind != feed.Frame || !bytes.Equal(e.Frame, sample) {
			t.Errorf("got %+v", e)
		}
		break
	}
	hub.End()
	for err = nil; err == nil; { // beats may come first
		_, err = s.Next(t.Context())
	}
	for path, want := range map[string]int{"/v1/feed?after=x": 400, "/v1/shapes/x": 405} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		req.Header.Set("Authorization", "Bearer s3cret")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	for _, base := range []string{"", "ingest:3001", "ftp://x", "http://user:pw@x"} {
		if _, err := feed.NewClient(base, ""); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v", base, err)
		}
	}
}
