package crash_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

const (
	writersMax  = 2
	convergeMax = 60 * time.Second       // from a fault's end until every client has everything
	progressMax = 30 * time.Second       // for the writers to make some commits
	pausePer    = 10                     // ms, at most, that a transaction is held open at times
	reconnect   = 50 * time.Millisecond  // between a writer's tries to reach Postgres
	healthPoll  = 100 * time.Millisecond // between looks at a process's health
)

// followed names the shapes of tests/oracle that the clients follow.
var followed = []string{
	"items-full", "items-in", "items-like", "items-equal-param", "pairs", "pairs-key", "nokey", "docs", "docs-full", "odd",
}

func TestMain(m *testing.M) { harness.Main(m) }

// rig is a database under load, an ingest and a serve that share the bucket alone, and a client of every shape.
type rig struct {
	db     *harness.Database
	reader *pgx.Conn
	bucket string
	env    map[string]string // of all processes
	ingest *harness.Process
	serve  *harness.Process
	rand   *rand.Rand
	seed   uint64

	shapes  []*oracle.Shape
	clients []*harness.Client
	http    *http.Client
	opened  int // distinct shapes made so far

	gate    sync.RWMutex // held for reading by each transaction, for writing while clients are compared
	commits atomic.Int64
}

// newRig starts all of it. The bucket is bucket, or for "" a folder of the test's.
func newRig(t *testing.T, bucket string) *rig {
	t.Helper()
	return newRigIn(t, bucket, nil)
}

// newRigIn is newRig with something in the environment of the processes.
func newRigIn(t *testing.T, bucket string, env map[string]string) *rig {
	t.Helper()
	harness.Require(t)
	r := &rig{bucket: bucket, env: env, seed: seed(t), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	if r.bucket == "" {
		r.bucket = harness.Bucket(t)
	}
	r.rand = rand.New(rand.NewPCG(r.seed, 1<<32))
	r.db = harness.Postgres(t, nil)
	for _, table := range oracle.Tables() {
		r.db.Exec(t, strings.Join(table.DDL, ";"))
	}
	r.ingest = r.newIngest(t, nil)
	r.ingest.WaitActive()
	r.serve = harness.Serve(t, harness.Options{Bucket: r.bucket, IngestURL: r.feed(t), Env: merged(r.env, shortPolls)})
	for _, s := range oracle.Shapes() {
		if slices.Contains(followed, s.Name) {
			r.follow(t, s)
		}
	}
	for _, c := range r.clients {
		ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
		defer cancel()
		if err := c.Await(ctx, func(harness.State) bool { return true }); err != nil {
			t.Fatalf("%.3000s", err.Error())
		}
	}
	for lane := range writersMax {
		background(t, func(ctx context.Context) error { return r.write(ctx, lane) })
	}
	return r
}

// feed returns where serve has the feed from: ingest, or nowhere. SHAPELINE_TEST_FEED says which (yes, no), else the seed.
func (r *rig) feed(t *testing.T) string {
	with := r.seed%2 == 0
	switch os.Getenv("SHAPELINE_TEST_FEED") {
	case "yes":
		with = true
	case "no":
		with = false
	}
	t.Logf("serve has the feed: %v", with)
	if with {
		return r.ingest.URL
	}
	return ""
}

// shortPolls makes idle shapes say soon how far they are, so that clients notice a dead server soon.
var shortPolls = map[string]string{"ELECTRIC_LONG_POLL_TIMEOUT": "2000"}

// newIngest starts an ingest and does not wait for its health.
func (r *rig) newIngest(t *testing.T, env map[string]string) *harness.Process {
	t.Helper()
	return harness.Ingest(t, harness.Options{
		DatabaseURL: r.db.URL(), Bucket: r.bucket, Env: merged(r.env, env), Standby: true,
	})
}

func merged(a, b map[string]string) map[string]string {
	all := make(map[string]string, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("SHAPELINE_TEST_SEED"), 10, 64)
	if err != nil {
		s = rand.Uint64() >> 32
	}
	t.Logf("SHAPELINE_TEST_SEED=%d", s)
	return s
}

// scale is SHAPELINE_TEST_SCALE, 1 without it.
func scale() int {
	if s, err := strconv.Atoi(os.Getenv("SHAPELINE_TEST_SCALE")); err == nil && s > 0 {
		return s
	}
	return 1
}

// background runs f until the test's end, or stop; its error fails the test.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // waited for by stop, which the clean-up calls at the latest
		defer close(ended)
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%.6000s", err.Error())
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// follow adds a client of s that runs to the end of the test.
func (r *rig) follow(t *testing.T, s *oracle.Shape) {
	c := harness.NewClient(r.serve.URL, s.RequestParams())
	c.HTTP = r.http
	r.shapes, r.clients = append(r.shapes, s), append(r.clients, c)
	background(t, func(ctx context.Context) error {
		if err := c.Run(ctx); err != nil {
			return fmt.Errorf("client of %s: %w", s.Name, err)
		}
		return nil
	})
}

// write is one writer: transaction after transaction, with a new connection when Postgres has closed the old one.
func (r *rig) write(ctx context.Context, lane int) error {
	gen := oracle.NewGenerator(r.seed, lane, writersMax)
	pauses := rand.New(rand.NewPCG(r.seed, 1<<33+uint64(lane)))
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, r.db.URL())
		if err != nil {
			select {
			case <-time.After(reconnect):
			case <-ctx.Done():
			}
			continue
		}
		if err := r.session(ctx, conn, gen, pauses); err != nil && !conn.IsClosed() && ctx.Err() == nil {
			return err
		}
		_ = conn.Close(context.WithoutCancel(ctx)) // mostly it is closed already
	}
	return nil
}

func (r *rig) session(ctx context.Context, conn *pgx.Conn, gen *oracle.Generator, pauses *rand.Rand) error {
	s, err := oracle.NewSession(ctx, conn, gen)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := r.transaction(ctx, s, pauses); err != nil {
			return err
		}
	}
	return nil
}

// transaction runs one transaction, none while clients are being compared.
func (r *rig) transaction(ctx context.Context, s *oracle.Session, pauses *rand.Rand) error {
	r.gate.RLock()
	defer r.gate.RUnlock()
	for {
		done, err := s.Step(ctx)
		if err != nil {
			return err
		}
		if done != nil {
			r.commits.Add(1)
		}
		if s.Idle() {
			return nil
		}
		if err := s.Pause(ctx, pauses.IntN(pausePer)); err != nil {
			return err
		}
	}
}

// load waits until the writers have made some more commits: a random number of at most n.
func (r *rig) load(t *testing.T, n int) {
	t.Helper()
	want := r.commits.Load() + 1 + int64(r.rand.IntN(n))
	deadline := time.Now().Add(progressMax)
	for r.commits.Load() < want {
		if time.Now().After(deadline) {
			t.Fatalf("the writers made no %d commits within %s", n, progressMax)
		}
		time.Sleep(time.Millisecond)
	}
}

// converge holds the writers back until every client holds what Postgres holds. Clients that were there before must
// not have seen a 409; the newest ones, made by open, may have.
func (r *rig) converge(t *testing.T, after string) {
	t.Helper()
	r.gate.Lock()
	defer r.gate.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), convergeMax)
	defer cancel()
	if r.reader == nil || r.reader.IsClosed() || r.reader.Ping(ctx) != nil {
		r.reader = r.db.Connect(t)
		if _, err := r.reader.PgConn().Exec(ctx, oracle.ClientSettings).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	states, err := oracle.States(ctx, r.reader, r.shapes)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range states {
		err := r.clients[i].AwaitSum(ctx, want.Sum)
		r.clients[i].View(func(s harness.State) {
			if err != nil {
				t.Errorf("after %s, client of %s: %.4000s\n%s", after, r.shapes[i].Name, err.Error(),
					oracle.Differences(s.Rows, want.Rows))
			}
			if s.Stats.Refetch > 0 && !strings.HasPrefix(r.shapes[i].Name, "opened-") {
				t.Errorf("after %s, client of %s: %d answers were 409", after, r.shapes[i].Name, s.Stats.Refetch)
			}
		})
	}
	if t.Failed() {
		t.Fatalf("after %s, at commit %d", after, r.commits.Load())
	}
}

// open adds a client of a definition that nobody has asked for yet, so that the fault meets a shape being made. Such
// a shape may be made twice: only its rows are held against it, not a 409.
func (r *rig) open(t *testing.T) {
	tables := oracle.Tables()
	r.opened++
	s := &oracle.Shape{Name: fmt.Sprintf("opened-%d", r.opened)}
	if r.opened%2 == 0 {
		s.Table, s.Where = tables[0], fmt.Sprintf("id <> %d", r.opened)
	} else {
		s.Table, s.Where = tables[3], fmt.Sprintf("size IS DISTINCT FROM %d", r.opened)
	}
	r.follow(t, s)
}

// folder is the bucket's folder.
func (r *rig) folder() string { return filepath.Clean(strings.TrimPrefix(r.bucket, "file://")) }
