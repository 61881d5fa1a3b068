package oracle_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

// convergeMax bounds the wait for a client to hold what Postgres holds, on a busy machine.
const convergeMax = 40 * time.Second

// shortPolls makes idle shapes say soon how far they are.
var shortPolls = map[string]string{"ELECTRIC_LONG_POLL_TIMEOUT": "1000"}

func TestMain(m *testing.M) { harness.Main(m) }

// world is one database with the tables and the server over it.
type world struct {
	db     *harness.Database
	reader *pgx.Conn // asks for what clients must hold
	base   string    // of the server that clients ask
	rand   *rand.Rand
	seed   uint64
}

// newDatabase starts Postgres with the tables, and no server yet.
func newDatabase(t *testing.T) *world {
	t.Helper()
	harness.Require(t)
	w := &world{seed: seed(t)}
	w.rand = rand.New(rand.NewPCG(w.seed, 1<<32))
	w.db = harness.Postgres(t, map[string]string{"deadlock_timeout": "100ms"})
	for _, table := range oracle.Tables() {
		w.db.Exec(t, strings.Join(table.DDL, ";"))
	}
	w.reader = w.db.Connect(t)
	if _, err := w.reader.PgConn().Exec(t.Context(), oracle.ClientSettings).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return w
}

// newWorld starts Postgres and the server: `dev`, or with split an ingest and a serve that share the bucket alone.
func newWorld(t *testing.T, split bool) *world {
	t.Helper()
	w := newDatabase(t)
	opt := harness.Options{DatabaseURL: w.db.URL(), Bucket: harness.Bucket(t)}
	if split {
		ingest := harness.Ingest(t, opt)
		from := harness.Options{Bucket: opt.Bucket, Env: shortPolls}
		if os.Getenv("SHAPELINE_TEST_FEED") == "yes" {
			from.IngestURL = ingest.URL
		}
		w.base = harness.Serve(t, from).URL
	} else {
		opt.Env = shortPolls
		w.base = harness.Dev(t, opt).URL
	}
	return w
}

// seed is SHAPELINE_TEST_SEED or a new one, printed either way.
func seed(t *testing.T) uint64 {
	t.Helper()
	s, err := strconv.ParseUint(os.Getenv("SHAPELINE_TEST_SEED"), 10, 64)
	if err != nil {
		s = rand.Uint64() >> 32
	}
	t.Logf("replay with SHAPELINE_TEST_SEED=%d", s)
	return s
}

// scaled returns n times SHAPELINE_TEST_SCALE.
func scaled(n int) int {
	if s, err := strconv.Atoi(os.Getenv("SHAPELINE_TEST_SCALE")); err == nil && s > 0 {
		return n * s
	}
	return n
}

// insertLSN is the end of the write-ahead log: every commit so far lies before it, every later one not.
func (w *world) insertLSN(ctx context.Context) (uint64, error) {
	var s string
	if err := w.reader.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&s); err != nil {
		return 0, fmt.Errorf("ask for the log's end: %w", err)
	}
	lsn, err := pg.ParseLSN(s)
	return uint64(lsn), err
}

// session opens the session of one writer among lanes.
func (w *world) session(t *testing.T, lane, lanes int) *oracle.Session {
	t.Helper()
	s, err := oracle.NewSession(t.Context(), w.db.Connect(t), oracle.NewGenerator(w.seed, lane, lanes))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// states asks Postgres for the states of shapes.
func (w *world) states(t *testing.T, shapes []*oracle.Shape) []oracle.State {
	t.Helper()
	all, err := oracle.States(t.Context(), w.reader, shapes)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
