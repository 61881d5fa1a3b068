//go:build unix

package localpg_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/internal/localpg"
)

// TestMain lets the test binary be the process that owns a server and is killed.
func TestMain(m *testing.M) {
	if os.Getenv("LOCALPG_TEST_OWNER") != "" {
		s, err := localpg.Start(context.Background(), localpg.Options{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.URL())
		<-s.Exited()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func requireE2E(t *testing.T) {
	t.Helper()
	if os.Getenv("SHAPELINE_TEST_E2E") != "1" {
		t.Skip("needs Postgres: make check runs it")
	}
}

// ask connects and returns the one value of query.
func ask(t *testing.T, dsn, query string) (string, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(t.Context())
	var got string
	err = conn.QueryRow(t.Context(), query).Scan(&got)
	return got, err
}

func TestServer(t *testing.T) {
	requireE2E(t)
	// A folder of root's that the server's user cannot pass: another place must be found.
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := localpg.Start(t.Context(), localpg.Options{Dir: dir, Settings: map[string]string{"work_mem": "3MB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()

	for query, want := range map[string]string{
		"SHOW wal_level":       "logical",
		"SHOW server_encoding": "UTF8",
		"SHOW work_mem":        "3MB",
		"SHOW timezone":        "UTC",
	} {
		if got, err := ask(t, s.URL(), query); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", query, got, err, want)
		}
	}
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", "wrong")
	if _, err := ask(t, u.String(), "SELECT 1::text"); err == nil {
		t.Error("a wrong password was accepted")
	}

	before := s.URL()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := ask(t, s.URL(), "SELECT 1::text"); err == nil {
		t.Error("a killed server answers")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.URL() != before {
		t.Errorf("URL after restarts: got %s, want %s", s.URL(), before)
	}
	data, err := ask(t, s.URL(), "SHOW data_directory")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder after Stop: %v", err)
	}
}

func TestServerDiesWithItsOwner(t *testing.T) {
	requireE2E(t)
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties a process to its parent")
	}
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "LOCALPG_TEST_OWNER=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	conn, err := pgx.Connect(t.Context(), lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var data string
	if err := conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Dir(data))

	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed
	raw := conn.PgConn().Conn()
	if err := raw.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, raw); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server outlived its owner by 10 s")
	}
}

func TestNoBinaries(t *testing.T) {
	_, err := localpg.Start(t.Context(), localpg.Options{BinDir: t.TempDir()})
	if err == nil {
		t.Error("a folder without programs was accepted")
	}
}
