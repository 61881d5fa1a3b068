// Package harness is what the end-to-end tests share: the built binary, a throwaway Postgres, the processes
// `shapeline dev|ingest|serve` on free ports with a bucket in a folder, and a strict client of the shape protocol
// that checks while it follows. It knows the product from outside only: its command line, its HTTP, its bucket as
// an opaque folder.
//
// The one idea: a test says what runs and what must hold; everything started here is stopped by the test's clean-up,
// and the logs of every process are printed when the test has failed.
package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/internal/localpg"
)

const (
	buildMax   = 10 * time.Minute // a cold build on a busy machine
	connectMax = 10 * time.Second
)

// Require skips the test unless end-to-end tests are wanted. Behind it, whatever is missing is a failure.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv("SHAPELINE_TEST_E2E") != "1" {
		t.Skip("end to end: make check runs it (SHAPELINE_TEST_E2E=1)")
	}
}

// Root is the folder of the checkout.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// built is the binary of this test process.
var built struct {
	once sync.Once
	path string
	err  error
}

// Binary is the path of the program: SHAPELINE_BIN if it is set, else built once a test process, with SHAPELINE_RACE=1
// under the race detector.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SHAPELINE_BIN"); path != "" {
		return path
	}
	root := Root(t)
	built.once.Do(func() {
		// No test owns the folder, so it has one name for a user and is written over by the next run.
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("shapeline-e2e-%d", os.Getuid()))
		if built.err = os.MkdirAll(dir, 0o755); built.err != nil {
			return
		}
		built.path = filepath.Join(dir, fmt.Sprintf("shapeline-%d", os.Getpid()))
		args, cgo := []string{"build", "-o", built.path}, "CGO_ENABLED=0"
		if os.Getenv("SHAPELINE_RACE") == "1" {
			args, cgo = append(args, "-race"), "CGO_ENABLED=1"
		}
		ctx, cancel := context.WithTimeout(context.Background(), buildMax)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/shapeline")...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build the binary: %v", built.err)
	}
	return built.path
}

// Main runs the tests, removes the binary that they built, and ends the servers that they share: func TestMain(m *testing.M) { harness.Main(m) }.
func Main(m *testing.M) {
	code := m.Run()
	endStores()
	if built.path != "" {
		_ = os.Remove(built.path) // the temporary folder is swept anyhow
	}
	os.Exit(code)
}

// FreePort is a loopback port that nothing listens on. A process that is started again gets the same one.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Bucket is the URL of an empty bucket: in a folder of the test's, or on the server that SHAPELINE_TEST_STORE names.
func Bucket(t testing.TB) string {
	t.Helper()
	if kind := storeKind(); kind != "" && kind != "dir" {
		s := Store(t, kind)
		return s.URL(s.NewBucket(t))
	}
	return "file://" + filepath.Join(t.TempDir(), "bucket")
}

// Database is a throwaway Postgres cluster.
type Database struct {
	*localpg.Server
}

// Postgres starts a cluster of the test's own, with settings besides the usual ones (nil for none). Slots and
// publications belong to a cluster, so tests do not share one.
func Postgres(t testing.TB, settings map[string]string) *Database {
	t.Helper()
	log := &logBuffer{}
	s, err := localpg.Start(context.Background(), localpg.Options{Settings: settings, Log: log})
	if err != nil {
		t.Fatalf("start Postgres: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop Postgres: %v", err)
		}
		if t.Failed() {
			t.Logf("postgres said:\n%s", indent(log.tail(logLinesMax)))
		}
	})
	return &Database{s}
}

// Connect opens a connection that the test's clean-up closes.
func (d *Database) Connect(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), connectMax)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL())
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), connectMax)
		defer cancel()
		_ = conn.Close(ctx) // the server may be gone by now
	})
	return conn
}

// Exec runs statements, separated by semicolons, on a connection of their own.
func (d *Database) Exec(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), connectMax)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL())
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	_, execErr := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err := errors.Join(execErr, conn.Close(ctx)); err != nil {
		t.Fatalf("run %.200s: %v", sql, err)
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
