package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// plant is a server over a memory store, and an ingest beside it that does what the test says.
type plant struct {
	tb    testing.TB
	store *counted
	s     *Server

	mu      sync.Mutex
	log     *shapelog.Writer
	durable chan struct{}
	lastID  shape.ID
	visible pg.LSN
	opens   int
	refuse  error // what Open answers, if set
	pages   []string
	late    bool // Open leaves the base incomplete
}

// newPlant returns a plant whose server runs until the test ends.
func newPlant(tb testing.TB, c Config) *plant {
	tb.Helper()
	p := &plant{
		tb: tb, store: &counted{Memory: object.NewMemory()}, visible: 1000, pages: []string{snapshotEnd},
		durable: make(chan struct{}),
	}
	c.Store = p.store
	if c.Opener == nil {
		c.Opener = p
	}
	p.s = New(c)
	var err error
	p.log, err = shapelog.OpenWriter(context.Background(), p.store, nothing{}, shapelog.WriterOptions{
		OnDurable: func(segment.Meta) { p.durable <- struct{}{} },
	})
	if err != nil {
		tb.Fatal(err)
	}
	p.put(segment.Frame{Records: []segment.Record{catalog.SourceRecord(catalog.Source{System: "1"})}})
	ctx, cancel := context.WithCancel(context.Background())
	s, done := p.s, make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			tb.Errorf("run: %v", err)
		}
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		if err := p.log.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// counted counts the reads of a store.
type counted struct {
	*object.Memory
	gets atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	c.gets.Add(1)
	return c.Memory.Get(ctx, key, r)
}

// nothing is the recovery of a writer whose log is new.
type nothing struct{}

func (nothing) Load(context.Context, shapelog.Checkpoint) error { return nil }
func (nothing) Apply(*segment.Segment) error                    { return nil }

// put appends a segment of one frame to the log, and tells the server.
func (p *plant) put(f segment.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putLocked(f)
}

func (p *plant) putLocked(f segment.Frame) {
	f.Visible, f.End = p.visible, p.visible+8
	var b segment.Builder
	b.Add(&f)
	if _, err := p.log.Append(context.Background(), &b); err != nil {
		p.tb.Fatal(err)
	}
	<-p.durable
	p.s.Wake()
}

const snapshotEnd = `[{"headers":{"control":"snapshot-end","xmin":"8","xmax":"8","xip_list":[]}}]`

// Open implements Opener: the new shape's base is p.pages.
func (p *plant) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opens++
	if p.refuse != nil {
		return shape.Handle{}, p.refuse
	}
	p.lastID++
	schema := json.RawMessage(`{"id":{"type":"int8","pk_index":0}}`)
	info := &catalog.Info{ID: p.lastID, Definition: d, Canonical: d.Hash(), Schema: schema, Relation: &pg.Relation{}}
	h := info.Handle()
	p.putLocked(segment.Frame{Records: []segment.Record{catalog.OpenedRecord(info, nil)}})
	if !p.late {
		for n, page := range p.pages {
			p.page(h, uint32(n), page)
		}
		p.putLocked(segment.Frame{Records: []segment.Record{
			catalog.ReadyRecord(h.Shape, catalog.Base{Pages: uint32(len(p.pages))}),
		}})
	}
	return h, catalog.PutPointer(ctx, p.store, d, h)
}

func (p *plant) page(h shape.Handle, n uint32, body string) {
	b := segment.AppendPage(nil, segment.Page{Body: []byte(body)})
	if _, err := p.store.Put(context.Background(), h.PageKey(n), b, object.IfAbsent()); err != nil {
		p.tb.Fatal(err)
	}
}

// Drop implements Opener.
func (p *plant) Drop(_ context.Context, h shape.Handle) error {
	p.drop(h, nil)
	return nil
}

func (p *plant) drop(h shape.Handle, why *shape.Refusal) {
	p.put(segment.Frame{Records: []segment.Record{catalog.DroppedRecord(h.Shape, why)}})
}

// commit writes a transaction of n changes of h, the last of which closes a chunk if chunkEnd.
func (p *plant) commit(h shape.Handle, n int, chunkEnd bool) pg.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visible += 100
	var f segment.Frame
	posting := segment.Posting{Shape: h.Shape}
	for i := range n {
		var marks segment.Ref
		if i == n-1 {
			marks = segment.RefLast
			if chunkEnd {
				marks |= segment.RefChunkEnd
			}
		}
		f.Messages = append(f.Messages, segment.Message{
			Offset: shape.At(p.visible, uint64(2*i)),
			Body:   fmt.Appendf(nil, `{"key":"%d_%d","value":{},"headers":{"operation":"insert"`, p.visible, 2*i),
		})
		posting.Refs = append(posting.Refs, segment.NewRef(i, marks))
	}
	f.Postings = []segment.Posting{posting}
	p.putLocked(f)
	return p.visible
}

// handle returns the handle of table t, opening its shape if need be.
func (p *plant) handle(table string) shape.Handle {
	p.tb.Helper()
	got := p.get("table=" + table + "&offset=-1")
	h, err := shape.ParseHandle(got.Header().Get("electric-handle"))
	if err != nil {
		p.tb.Fatalf("%d %s: %v", got.Code, got.Body, err)
	}
	return h
}

// get answers GET /v1/shape with the query.
func (p *plant) get(query string, headers ...string) *httptest.ResponseRecorder {
	return p.do(http.MethodGet, "/v1/shape?"+query, "", headers...)
}

func (p *plant) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	return p.serve(newRequest(p.tb, method, target, body, headers...))
}

func (p *plant) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.s.ServeHTTP(w, r)
	return w
}

// newRequest returns a request whose target is read as net/http's server reads it.
func newRequest(tb testing.TB, method, target, body string, headers ...string) *http.Request {
	tb.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL, r.RequestURI = u, target
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// bubble runs a test in which time stands still until everybody waits.
func bubble(t *testing.T, c Config, test func(t *testing.T, p *plant)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC))) // cursors count from 2024
		test(t, newPlant(t, c))
	})
}

// expect compares status, body and some headers ("name", "value", ...; an absent header is "-").
func expect(t *testing.T, got *httptest.ResponseRecorder, status int, body string, headers ...string) {
	t.Helper()
	if got.Code != status || got.Body.String() != body {
		t.Errorf("got %d %s\nwant %d %s", got.Code, got.Body, status, body)
	}
	for i := 0; i < len(headers); i += 2 {
		values, ok := got.Header()[http.CanonicalHeaderKey(headers[i])]
		value := strings.Join(values, ", ")
		if !ok {
			value = "-"
		}
		if value != headers[i+1] {
			t.Errorf("%s: got %q, want %q", headers[i], value, headers[i+1])
		}
	}
}

func upToDate(lsn pg.LSN) string {
	return fmt.Sprintf(`{"headers":{"control":"up-to-date","global_last_seen_lsn":"%d"}}`, uint64(lsn))
}

// entry is what commit's change number i of the transaction at lsn looks like.
func entry(lsn pg.LSN, i int, last bool) string {
	end := ""
	if last {
		end = `,"last":true`
	}
	return fmt.Sprintf(`{"key":"%d_%d","value":{},"headers":{"operation":"insert"%s}}`, uint64(lsn), 2*i, end)
}

type answered = *httptest.ResponseRecorder

// later runs f beside the test.
func later[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}
