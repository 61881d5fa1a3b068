package oracle_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

const (
	// A stream that ends sooner counts as short; after three in a row the npm client gives streams up.
	shortStream  = time.Second
	shortRunsMax = 2
	lineBytesMax = 4 << 20
)

// stream follows a shape by server-sent events, as the npm client does: the snapshot by GET, then events. After an
// up-to-date its place is the LSN that this names, so that changes may come again when it connects anew.
type stream struct {
	base   string
	params url.Values
	rec    *recorder

	mu     sync.Mutex
	rows   map[string]harness.Row
	sum    uint64
	handle string
	offset shape.Offset // of the next request
	cursor string
	last   shape.Offset  // of the newest change
	moved  chan struct{} // closed at the next up-to-date
	short  int           // streams in a row that ended soon
}

func newStream(base string, params url.Values) *stream {
	return &stream{base: base, params: params, moved: make(chan struct{})}
}

// open fetches the shape so far.
func (s *stream) open(ctx context.Context) error {
	c := harness.NewClient(s.base, s.params)
	s.rec = newRecorder(c)
	if err := c.Sync(ctx); err != nil {
		return err
	}
	c.View(func(st harness.State) {
		s.rows, s.sum, s.handle, s.offset, s.last = maps.Clone(st.Rows), st.Sum, st.Handle, st.Offset, st.Offset
	})
	return nil
}

// run follows the shape until ctx is done.
func (s *stream) run(ctx context.Context) error {
	for {
		began := time.Now()
		err := s.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if s.short++; time.Since(began) > shortStream {
			s.short = 0
		}
		if s.short > shortRunsMax {
			return fmt.Errorf("%d streams in a row ended within %s", s.short, shortStream)
		}
	}
}

// connect makes one request and reads it to its end.
func (s *stream) connect(ctx context.Context) error {
	q := maps.Clone(s.params)
	for k, v := range map[string]string{
		"offset": s.offset.String(), "handle": s.handle, "cursor": s.cursor, "live": "true", "live_sse": "true",
	} {
		q.Set(k, v)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/v1/shape?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	ct := resp.Header.Get("Content-Type")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(ct, "text/event-stream") {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("GET %s: status %d, %s: %s", req.URL, resp.StatusCode, ct, b)
	}
	s.cursor = resp.Header.Get("electric-cursor")
	if h := resp.Header.Get("electric-handle"); h != s.handle {
		return fmt.Errorf("GET %s: the handle %s", req.URL, h)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, lineBytesMax)
	blank := true
	for lines.Scan() {
		line := lines.Text()
		data, isData := strings.CutPrefix(line, "data: ")
		switch {
		case isData && blank:
			if err := s.event(data, s.offset); err != nil {
				return fmt.Errorf("GET %s: %w\n%s", req.URL, err, oracle.Short(data))
			}
		case line != "" && line != ": keep-alive" || isData:
			return fmt.Errorf("GET %s: the line %q", req.URL, oracle.Short(line))
		}
		blank = line == ""
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read the events: %w", err)
	}
	return nil
}

// event takes one message in. asked is the offset of the request that it answers.
func (s *stream) event(data string, asked shape.Offset) error {
	var m change
	if err := json.Unmarshal([]byte(data), &m); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.Headers.Control == "up-to-date":
		lsn, err := strconv.ParseUint(m.Headers.GlobalLSN, 10, 64)
		if err != nil {
			return err
		}
		if lsn < s.last.Tx {
			return fmt.Errorf("up to date with %d behind %s", lsn, s.last)
		}
		s.offset = shape.At(pg.LSN(lsn), 0)
		close(s.moved)
		s.moved = make(chan struct{})
		return nil
	case m.Headers.Control != "" || m.Key == nil:
		return errors.New("neither a change nor up-to-date")
	}
	lsn, err := strconv.ParseUint(m.Headers.LSN, 10, 64)
	if err != nil {
		return err
	}
	at := shape.At(pg.LSN(lsn), m.Headers.Op)
	if at.Compare(s.last) <= 0 {
		if at.Tx != asked.Tx {
			return fmt.Errorf("%s came again for the request at %s", at, asked)
		}
		return nil // as documented: the place inside its transaction is lost
	}
	return s.apply(m, at)
}

func (s *stream) apply(m change, at shape.Offset) error {
	old, known := s.rows[*m.Key]
	if known == (m.Headers.Operation == "insert") {
		return fmt.Errorf("%s of the key %s: known is %v", m.Headers.Operation, *m.Key, known)
	}
	if known {
		s.sum -= old.Sum()
	}
	applyChange(s.rows, m)
	if row, ok := s.rows[*m.Key]; ok {
		s.sum += row.Sum()
	}
	s.last = at
	s.rec.sent(m, at, s.sum)
	return nil
}

// await waits until everything up to the transaction at lsn has come.
func (s *stream) await(ctx context.Context, lsn uint64) error {
	for {
		s.mu.Lock()
		moved, at := s.moved, s.offset
		s.mu.Unlock()
		if at.Tx >= lsn {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("the stream is at %s and not at %d: %w", at, lsn, ctx.Err())
		}
	}
}
