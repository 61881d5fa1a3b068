package ingest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/shapeline/shapeline/ingest/base"
	"github.com/shapeline/shapeline/internal/shape"
)

// State says how far an ingest is.
type State string

// The states of an ingest, in the words of /v1/health. Stalled means that Postgres is followed but the bucket
// takes nothing: nothing is lost, and nothing goes on.
const (
	Starting State = "starting"
	Waiting  State = "waiting"
	Active   State = "active"
	Stalled  State = "stalled"
)

// Status is the state and, unless it is Active, why.
type Status struct {
	State  State  `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// stalledAfter is how long a segment may be under way before health says so.
const stalledAfter = 5 * time.Second

// Status tells how ingest is.
func (s *Service) Status() Status {
	s.mu.Lock()
	st, t := s.status, s.term
	s.mu.Unlock()
	if t != nil {
		if since, err := t.engine.writer.Stalled(); err != nil && time.Since(since) > stalledAfter {
			return Status{Stalled, "the bucket takes no segment since " + since.UTC().Format(time.RFC3339) + ": " + err.Error()}
		}
	}
	return st
}

func (s *Service) set(st Status, t *term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.term = st, t
	close(s.changed)
	s.changed = make(chan struct{})
}

// active waits a little for a running engine. The error is a *shape.Refusal, or ctx's.
func (s *Service) active(ctx context.Context) (*term, error) {
	timeout := time.NewTimer(activeWait)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		t, st, changed := s.term, s.status, s.changed
		s.mu.Unlock()
		if t != nil {
			return t, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			text := "Timeout waiting for replication client to be ready"
			if st.State == Waiting {
				text = "Timeout waiting for Postgres lock acquisition"
			}
			if st.Reason != "" {
				text += ": " + st.Reason
			}
			return nil, shape.Unavailable(5, text)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ServeHTTP answers GET /v1/health, all that an ingest without serve has to say over HTTP.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/health" {
		http.Error(w, "Not found", http.StatusNotFound)
		return
	}
	st := s.Status()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
	if st.State != Active {
		w.WriteHeader(http.StatusAccepted)
	}
	_ = json.NewEncoder(w).Encode(st) // the client may have gone
}

// Progress is how far the snapshot of a shape is.
type Progress struct {
	Handle shape.Handle
	Table  shape.Table
	Rows   uint64
	Bytes  uint64        // of JSON
	Took   time.Duration // so far
	Done   bool          // no more rows come
}

// progressRows is how many rows pass between two reports.
const progressRows = 10000

type progress struct {
	report  func(Progress)
	started time.Time
	now     Progress
}

func (s *Service) progress(h shape.Handle, t shape.Table) *progress {
	return &progress{report: s.cfg.Progress, started: time.Now(), now: Progress{Handle: h, Table: t}}
}

func (p *progress) add(w *base.Writer) {
	p.now.Rows++
	if p.now.Rows%progressRows == 0 {
		p.tell(w)
	}
}

// end says that no more rows come, for whatever reason.
func (p *progress) end(w *base.Writer) {
	p.now.Done = true
	p.tell(w)
}

func (p *progress) tell(w *base.Writer) {
	if p.report != nil {
		p.now.Bytes, p.now.Took = w.Bytes(), time.Since(p.started)
		p.report(p.now)
	}
}
