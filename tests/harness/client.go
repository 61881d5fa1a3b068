package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/shape"
)

const (
	requestMax = 60 * time.Second       // one request; a live one is answered within the server's 20 s
	retryFirst = 10 * time.Millisecond  // after a broken connection or a 5xx, doubled each time
	retryMax   = 250 * time.Millisecond // so that an outage is over soon after the server is back
)

// ErrViolation is matched by what Run and Sync return when the server broke a rule of the protocol. It is final.
var ErrViolation = errors.New("protocol violation")

// Commit is the state of a shape at the end of one transaction that touched it.
type Commit struct {
	LSN uint64 // of the commit, as the messages' lsn says
	XID uint32 // the messages' only txid
	Sum uint64 // of all rows, see Sum
}

// Stats counts what a client has been through.
type Stats struct {
	Requests int // answered or not
	Messages int // changes received
	Refetch  int // answers 409
	Retries  int // broken connections, 5xx, 429
	Bytes    int64
}

// State is what a client knows at an up-to-date message. Rows is the client's own: read it while it is lent to you,
// and clone what you keep.
type State struct {
	Handle string
	Offset shape.Offset
	LSN    uint64         // global_last_seen_lsn: everything up to here is in Rows
	Rows   map[string]Row // by key
	Sum    uint64         // of Rows
	Stats  Stats
}

// Client follows one shape by GET: the snapshot, the log, then long polls. It materialises the rows and checks
// everything that an answer can be checked for (rules.go). It goes on through broken connections and 5xx, and
// starts afresh at a 409. The exported fields are set before the first Sync or Run.
type Client struct {
	HTTP     *http.Client         // nil: http.DefaultClient
	OnCommit func(Commit)         // called in order, from the goroutine that runs; nil: not called
	OnReply  func(Reply)          // called for each answer with status 200 or 409; nil: not called
	Logf     func(string, ...any) // told about retries and refetches; nil: nobody

	base   string
	params url.Values

	mu      sync.Mutex
	st      State
	log     follower
	synced  bool          // an up-to-date has been seen since the last refetch or call of Sync
	live    bool          // the next request is a long poll
	cursor  string        // electric-cursor
	moved   chan struct{} // closed at the next up-to-date
	err     error         // a violation
	trouble error         // what was last retried for
}

// Reply is one answer as it came.
type Reply struct {
	URL    string
	Status int
	Header http.Header
	Body   []byte
}

// NewClient prepares a client of the shape that params names (table, where, params[1], columns, replica, log, secret)
// at base, the server's URL without path.
func NewClient(base string, params url.Values) *Client {
	c := &Client{base: base, params: maps.Clone(params), moved: make(chan struct{})}
	c.reset()
	return c
}

// Params is short for url.Values with one value a name: name, value, name, value.
func Params(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// SetBase makes the client ask another server from the next request on.
func (c *Client) SetBase(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base = base
}

// Sync asks until the client is up to date. It goes on where it left off, so later calls fetch what is new without
// waiting for more.
func (c *Client) Sync(ctx context.Context) error {
	c.mu.Lock()
	c.synced, c.live = false, false
	c.mu.Unlock()
	err := c.run(ctx, func() bool { return c.synced })
	if err != nil && !errors.Is(err, ErrViolation) {
		err = fmt.Errorf("%w (%s)", err, c.where())
	}
	return err
}

// Run follows the shape until ctx is done, which is no error, or a rule is broken.
func (c *Client) Run(ctx context.Context) error {
	err := c.run(ctx, func() bool { return false })
	if ctx.Err() != nil && !errors.Is(err, ErrViolation) {
		return nil
	}
	return err
}

func (c *Client) run(ctx context.Context, done func() bool) error {
	wait := retryFirst
	for {
		retry, err := c.step(ctx)
		if err != nil && !retry {
			return err
		}
		if !retry {
			wait = retryFirst
			c.mu.Lock()
			ok := done()
			c.mu.Unlock()
			if ok {
				return nil
			}
			continue
		}
		c.logf("retry in %s: %v", wait, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, retryMax)
	}
}

// step makes one request and takes the answer in. With retry, err says what to try again for.
func (c *Client) step(ctx context.Context) (retry bool, err error) {
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return false, err
	}
	c.st.Stats.Requests++
	target := c.nextURL()
	c.mu.Unlock()

	r, err := fetch(ctx, c.HTTP, target)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil || r.Status >= 500 || r.Status == http.StatusTooManyRequests {
		if err == nil {
			err = fmt.Errorf("status %d: %.300s", r.Status, r.Body)
		}
		c.mu.Lock()
		c.st.Stats.Retries++
		c.trouble = err
		c.mu.Unlock()
		return true, err
	}
	commits, err := c.receive(r)
	if c.OnReply != nil && (r.Status == http.StatusOK || r.Status == http.StatusConflict) {
		c.OnReply(r)
	}
	for _, commit := range commits {
		if c.OnCommit != nil {
			c.OnCommit(commit)
		}
	}
	return false, err
}

// receive takes an answer in and returns the transactions that it ends.
func (c *Client) receive(r Reply) (commits []Commit, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st.Stats.Bytes += int64(len(r.Body))
	switch r.Status {
	case http.StatusOK:
		commits, err = c.take(r)
	case http.StatusConflict:
		err = c.refetch(r)
	default:
		err = fmt.Errorf("status %d", r.Status)
	}
	if err != nil {
		c.err = fmt.Errorf("%w: %w\nGET %s\n%v\n%.2000s", ErrViolation, err, r.URL, r.Header, r.Body)
	}
	return commits, c.err
}

// nextURL is the request for what follows the client's offset.
func (c *Client) nextURL() string {
	q := maps.Clone(c.params)
	q.Set("offset", c.st.Offset.String())
	if c.st.Handle != "" {
		q.Set("handle", c.st.Handle)
	}
	if c.live {
		q.Set("live", "true")
		q.Set("cursor", c.cursor)
	}
	return c.base + "/v1/shape?" + q.Encode()
}

func fetch(ctx context.Context, h *http.Client, target string) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, requestMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return Reply{}, err
	}
	if h == nil {
		h = http.DefaultClient
	}
	resp, err := h.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Reply{}, fmt.Errorf("read the body: %w", err)
	}
	return Reply{target, resp.StatusCode, resp.Header, body}, nil
}

// take checks an answer and applies it.
func (c *Client) take(r Reply) (commits []Commit, err error) {
	ans, err := parseAnswer(r, c.live)
	if err != nil {
		return nil, err
	}
	if c.st.Handle != "" && ans.handle != c.st.Handle {
		return nil, fmt.Errorf("a 200 with the handle %s for a request with %s", ans.handle, c.st.Handle)
	}
	if err := c.log.checkAnswer(c.st.Offset, ans); err != nil {
		return nil, err
	}
	for i := range ans.messages {
		m := &ans.messages[i]
		if m.Headers.Control != "" {
			if err := c.log.control(m); err != nil {
				return commits, fmt.Errorf("message %d: %w", i, err)
			}
			continue
		}
		c.st.Stats.Messages++
		sum, err := c.log.change(c.st.Offset, m)
		if err != nil {
			return commits, fmt.Errorf("message %d: %w", i, err)
		}
		c.st.Sum += sum
		if m.Headers.Last {
			commits = append(commits, Commit{c.log.last.Tx, m.Headers.Txids[0], c.st.Sum})
		}
	}
	c.st.Handle, c.st.Offset = ans.handle, ans.offset
	if c.live {
		c.cursor = ans.cursor
	}
	if ans.upToDate {
		c.st.LSN, c.synced, c.live = c.log.claimed, true, true
		close(c.moved)
		c.moved = make(chan struct{})
	}
	return commits, nil
}

// refetch takes a 409 in: all over again. The handle that it names is not sent on, because it means nothing with
// the offset -1.
func (c *Client) refetch(r Reply) error {
	c.st.Stats.Refetch++
	next := r.Header.Get("electric-handle")
	if next != "" && next == c.st.Handle {
		return fmt.Errorf("a 409 that names the dead handle %s", next)
	}
	var body []message
	if err := json.Unmarshal(r.Body, &body); err != nil || len(body) != 1 || body[0].Headers.Control != "must-refetch" {
		return errors.New("a 409 that is not [must-refetch]")
	}
	c.reset()
	return nil
}

// reset forgets everything but the counts.
func (c *Client) reset() {
	rows := map[string]Row{}
	c.st = State{Rows: rows, Stats: c.st.Stats}
	c.log = follower{
		rows:    rows,
		full:    c.params.Get("replica") == "full",
		lenient: c.params.Get("log") == "changes_only",
	}
	c.synced, c.live, c.cursor = false, false, ""
}

// View calls see with the state as it is now. Between up-to-date messages it may be in the middle of a snapshot.
func (c *Client) View(see func(State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	see(st)
}

// Await waits until the state at an up-to-date message satisfies cond; somebody else runs the client.
func (c *Client) Await(ctx context.Context, cond func(State) bool) error {
	for {
		c.mu.Lock()
		moved, err := c.moved, c.err
		ok := c.synced && cond(c.st)
		c.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("await: %w (%s)", ctx.Err(), c.where())
		}
	}
}

// AwaitLSN waits until the server has said that everything up to lsn is in. The LSN of an idle shape moves when a
// long poll times out, so tests set ELECTRIC_LONG_POLL_TIMEOUT low.
func (c *Client) AwaitLSN(ctx context.Context, lsn uint64) error {
	return c.Await(ctx, func(s State) bool { return s.LSN >= lsn })
}

// AwaitSum waits until the rows add up to sum, see Sum.
func (c *Client) AwaitSum(ctx context.Context, sum uint64) error {
	return c.Await(ctx, func(s State) bool { return s.Sum == sum })
}

// where describes how far the client is, for error texts.
func (c *Client) where() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s: handle %s, offset %s, live %v, LSN %d, %d rows, %+v, last trouble: %v",
		c.params.Encode(), c.st.Handle, c.st.Offset, c.live, c.st.LSN, len(c.st.Rows), c.st.Stats, c.trouble)
}

func (c *Client) logf(format string, args ...any) {
	if c.Logf != nil {
		c.Logf("%s: %s", c.params.Encode(), fmt.Sprintf(format, args...))
	}
}

// answer is a 200 with its headers parsed.
type answer struct {
	handle   string
	offset   shape.Offset
	cursor   string
	upToDate bool
	messages []message
}

// parseAnswer reads the headers that section 4.1 of the protocol wants, and the body with the types it wants.
func parseAnswer(r Reply, live bool) (answer, error) {
	a := answer{handle: r.Header.Get("electric-handle"), cursor: r.Header.Get("electric-cursor")}
	a.upToDate = r.Header.Values("electric-up-to-date") != nil
	if a.handle == "" {
		return a, errors.New("no electric-handle")
	}
	var err error
	if a.offset, err = shape.ParseOffset(r.Header.Get("electric-offset")); err != nil || a.offset.IsNow() {
		return a, fmt.Errorf("electric-offset is %q", r.Header.Get("electric-offset"))
	}
	if schema := r.Header.Get("electric-schema"); (schema != "") == live || !live && !json.Valid([]byte(schema)) {
		return a, fmt.Errorf("electric-schema is %q in an answer with live=%v", schema, live)
	}
	if _, err := strconv.ParseUint(a.cursor, 10, 64); live && err != nil {
		return a, fmt.Errorf("electric-cursor is %q", a.cursor)
	}
	dec := json.NewDecoder(bytes.NewReader(r.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a.messages); err != nil {
		return a, fmt.Errorf("read the messages: %w", err)
	}
	if a.messages == nil || dec.More() {
		return a, errors.New("the body is not one array")
	}
	return a, nil
}
