// Package serve answers Electric's shape API over HTTP from a bucket: it turns parameters into a shape's definition,
// the definition into a handle, and a handle with an offset into a page of the shape's base, a stretch of its log, or
// a parked request that the follower of the log wakes. PROTOCOL.md beside this file says where it deviates from the
// protocol and why.
//
// It creates no shape (an Opener does), evaluates no filter and renders no row: bodies are bytes that ingest made,
// copied. It keeps no state that matters: what it holds in memory are bounded caches and the requests under way.
//
// The one idea: an answer is one view of the catalogue at one moment, made into one body for everybody who asks for
// the same, and a parked request is a member of a group that waits for the next such view.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
	"github.com/shapeline/shapeline/serve/lru"
	"github.com/shapeline/shapeline/serve/pulse"
	"github.com/shapeline/shapeline/serve/tail"
)

// Config says what a Server does. Store is required; a zero field means the default.
type Config struct {
	Store  object.Store
	Opener Opener       // a Requester over Store, behind Ingest
	Ingest Opener       // asked first, if set; who cannot reach it leaves a request in the bucket
	Feed   tail.Feed    // of ingest; none: the bucket alone
	Log    *slog.Logger // none

	Secret      string // what clients must present; "" lets everybody in
	AllowDelete bool   // whether DELETE drops shapes

	CacheMaxAge     time.Duration // 60 s
	CacheStaleAge   time.Duration // 300 s
	LongPollTimeout time.Duration // 20 s
	SSETimeout      time.Duration // 60 s
	SSEKeepAlive    time.Duration // 21 s
	MaxInitial      int           // 300: requests under way whose shape may have to be made
	MaxExisting     int           // 10000: the others, parked ones included
	BodyBytes       int64         // 128 MiB: bodies of answers, those being sent included
	SegmentBytes    int64         // 64 MiB: decoded segments
	Version         string        // "dev": in the electric-server header

	// Health overrides what Server.Health reports: whether shapes can be read and made, or only read because another
	// instance is the active one, and if neither, why in a sentence for clients.
	Health func() (ready, waiting bool, reason string)
}

const (
	// readyTimeout is how long a request waits for a server that has just started.
	readyTimeout = 5 * time.Second
	readyPoll    = 50 * time.Millisecond
	retryStart   = 5  // seconds
	retryDown    = 10 // seconds

	textLoading = "Timeout waiting for shape data to be loaded"
)

var (
	errLoading  = unavailable(retryStart, textLoading)
	errDraining = unavailable(1, "The server is shutting down. Please retry.")
)

// Server answers requests as an http.Handler. Run must run meanwhile.
type Server struct {
	cfg       Config
	log       *slog.Logger
	name      string // electric-server
	cacheTail string // cache-control of log answers
	cacheSSE  string
	opener    Opener

	state    *catalog.State
	tail     *tail.Tail
	watchers atomic.Int64 // requests that wait for the log to grow

	source    *body.Source
	shelf     *body.Shelf
	waits     waits
	pulse     pulse.Pulse
	handles   *lru.Cache[string, shape.Handle]
	refusals  *lru.Cache[shape.ID, *shape.Refusal]
	opens     singleflight.Group
	pageWaits singleflight.Group

	initial, existing gate

	draining  chan struct{}
	drainOnce sync.Once
}

// New returns a server. It does no I/O.
func New(c Config) *Server {
	setDefault(&c.Log, slog.New(slog.DiscardHandler))
	setDefault(&c.CacheMaxAge, 60*time.Second)
	setDefault(&c.CacheStaleAge, 300*time.Second)
	setDefault(&c.LongPollTimeout, 20*time.Second)
	setDefault(&c.SSETimeout, 60*time.Second)
	setDefault(&c.SSEKeepAlive, 21*time.Second)
	setDefault(&c.MaxInitial, 300)
	setDefault(&c.MaxExisting, 10000)
	setDefault(&c.BodyBytes, 128<<20)
	setDefault(&c.SegmentBytes, 64<<20)
	setDefault(&c.Version, "dev")
	s := &Server{
		cfg: c, log: c.Log, opener: c.Opener, name: "Shapeline/" + c.Version,
		cacheTail: fmt.Sprintf("public, max-age=%d, stale-while-revalidate=%d",
			int64(c.CacheMaxAge/time.Second), int64(c.CacheStaleAge/time.Second)),
		cacheSSE: "public, max-age=" + strconv.FormatInt(max(int64(c.SSETimeout/time.Second)-1, 0), 10),
		state:    catalog.New(),
		source:   body.NewSource(c.Store, c.SegmentBytes),
		shelf:    body.NewShelf(c.BodyBytes),
		handles:  lru.New[string, shape.Handle](handlesMax),
		refusals: lru.New[shape.ID, *shape.Refusal](refusalsMax),
		initial:  gate{kind: "initial", max: int64(c.MaxInitial)},
		existing: gate{kind: "existing", max: int64(c.MaxExisting)},
		draining: make(chan struct{}),
	}
	if s.opener == nil {
		s.opener = &Requester{Store: c.Store, Known: func(ctx context.Context, h shape.Handle) (bool, error) {
			err := s.sync(ctx)
			return err == nil && s.knows(h), err
		}}
		if c.Ingest != nil {
			s.opener = reachable{c.Ingest, s.opener}
		}
	}
	s.tail = tail.New(tail.Config{
		Store: c.Store, State: s.state, Bodies: s.source, Feed: c.Feed, Log: c.Log,
		Waiting: func() bool { return s.watchers.Load() > 0 }, Changed: s.changed,
	})
	s.waits = waits{shelf: s.shelf, look: s.look, groups: make(map[shape.ID]map[groupKey]*group)}
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Health reports whether shapes can be read and made; or only read, because another instance is the active one; and
// if neither, why.
func (s *Server) Health() (ready, waiting bool, reason string) {
	if !s.tail.Open() {
		return false, false, textLoading
	}
	if s.cfg.Health != nil {
		return s.cfg.Health()
	}
	return true, false, ""
}

// Drain answers all parked requests as if their time were over, and from now on parks none, so that
// http.Server.Shutdown can end soon. It may be called more than once.
func (s *Server) Drain() { s.drainOnce.Do(func() { close(s.draining) }) }

// awaitLoaded waits for a server that has just started.
func (s *Server) awaitLoaded(ctx context.Context) error {
	select {
	case <-s.tail.Loaded():
		return nil
	default:
	}
	limit := time.NewTimer(readyTimeout)
	defer limit.Stop()
	select {
	case <-s.tail.Loaded():
		return nil
	case <-limit.C:
		return errLoading
	case <-s.draining:
		return errDraining
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitReady waits until the server is the active one and everything runs.
func (s *Server) awaitReady(ctx context.Context) error {
	limit := time.NewTimer(readyTimeout)
	defer limit.Stop()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		ready, _, reason := s.Health()
		if ready {
			return nil
		}
		select {
		case <-poll.C:
		case <-limit.C:
			return unavailable(retryStart, reason)
		case <-s.draining:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
