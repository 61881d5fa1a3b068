package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/internal/localpg"
)

const (
	startMax  = 60 * time.Second      // until the server answers that it is active
	stopMax   = 20 * time.Second      // for an orderly end, before SIGKILL
	startPoll = 20 * time.Millisecond // between looks at its health
	logKept   = 64 << 10              // bytes of the server's log that an error shows at most the end of
)

// layout says which processes a machine has beside Postgres.
type layout struct {
	minio bool // the bucket is a MinIO's, not a folder
	apart bool // ingest and serve are two processes
	feed  bool // serve has the feed, if they are
	flags []string
}

// machine is a Postgres and a server on it, for one row of the table.
type machine struct {
	layout
	ingest  *exec.Cmd // nil if the server does it
	store   *exec.Cmd // nil if the bucket is a folder
	metrics []string  // addresses
	dir     string
	pg      *localpg.Server
	pgPID   int
	conn    *pgx.Conn
	server  *exec.Cmd
	log     *tail
	url     string // of the server, without a path
}

// newMachine starts Postgres, runs the statements in it, builds the binary and starts `shapeline dev` on both.
func newMachine(ctx context.Context, statements ...string) (*machine, error) {
	return newMachineOf(ctx, layout{}, statements...)
}

func newMachineOf(ctx context.Context, l layout, statements ...string) (m *machine, err error) {
	m = &machine{layout: l, log: &tail{}}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.dir, err = os.MkdirTemp("", "shapeline-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	m.pg, err = localpg.Start(ctx, localpg.Options{Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
	}})
	if errors.Is(err, localpg.ErrNoBinaries) {
		return nil, fmt.Errorf("%w: %w", errCannotRun, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	if m.conn, err = pgx.Connect(ctx, m.pg.URL()); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	for _, s := range statements {
		if _, err := m.conn.Exec(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	var backend int
	if err := m.conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return nil, fmt.Errorf("ask for the backend's process: %w", err)
	}
	if m.pgPID, err = parentOf(backend); err != nil {
		return nil, fmt.Errorf("%w: CPU time is read from /proc: %w", errCannotRun, err)
	}
	return m, m.startServer(ctx)
}

func (m *machine) startServer(ctx context.Context) error {
	bin := os.Getenv("SHAPELINE_BIN")
	if bin == "" {
		bin = filepath.Join(m.dir, "shapeline")
		out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/shapeline").CombinedOutput()
		if err != nil {
			return fmt.Errorf("build the binary (run this from the checkout's root): %w: %s", err, out)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	bucket, err := m.bucket(ctx)
	if err != nil {
		return err
	}
	start := func(command string, more ...string) (*exec.Cmd, string, error) {
		addr, err := freeAddr()
		if err != nil {
			return nil, "", err
		}
		metrics, err := freeAddr()
		if err != nil {
			return nil, "", err
		}
		m.metrics = append(m.metrics, metrics)
		args := append([]string{command, "--listen", addr, "--bucket", bucket, "--metrics-listen", metrics}, more...)
		cmd := exec.Command(bin, args...)
		cmd.Env = append(os.Environ(), "ELECTRIC_ENABLE_INTEGRATION_TESTING=true", "AWS_ACCESS_KEY_ID="+storeUser, "AWS_SECRET_ACCESS_KEY="+storePassword)
		cmd.Stdout, cmd.Stderr = m.log, m.log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches us, and we stop it in order
		if err := cmd.Start(); err != nil {
			return nil, "", fmt.Errorf("start the server: %w", err)
		}
		return cmd, "http://" + addr, nil
	}
	database := append([]string{"--database-url", m.pg.URL()}, m.flags...)
	if m.apart {
		var from string
		if m.ingest, from, err = start("ingest", append(database, "--insecure")...); err != nil {
			return err
		}
		more := []string{"--insecure"}
		if m.feed {
			more = append(more, "--ingest-url", from)
		}
		m.server, m.url, err = start("serve", more...)
	} else {
		m.server, m.url, err = start("dev", database...)
	}
	if err != nil {
		return err
	}
	for {
		if resp, err := get(ctx, http.MethodGet, m.url+"/v1/health"); err == nil && resp.status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w; its log ends: %s", ctx.Err(), m.log)
		case <-time.After(startPoll):
		}
	}
}

// close stops everything and removes the folder.
func (m *machine) close() {
	for _, cmd := range []*exec.Cmd{m.server, m.ingest, m.store} {
		if cmd != nil {
			end(cmd)
		}
	}
	if m.conn != nil {
		_ = m.conn.Close(context.Background())
	}
	if m.pg != nil {
		if err := m.pg.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: stop Postgres:", err)
		}
	}
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
}

// cpu returns the CPU seconds that the server and Postgres have used so far.
func (m *machine) cpu() (server, postgres float64) {
	server = cpuOfTree(m.server.Process.Pid)
	if m.ingest != nil {
		server += cpuOfTree(m.ingest.Process.Pid)
	}
	return server, cpuOfTree(m.pgPID)
}

// signal reaches the processes that answer clients.
func (m *machine) signal(sig syscall.Signal) error {
	err := m.server.Process.Signal(sig)
	if m.ingest != nil {
		err = errors.Join(err, m.ingest.Process.Signal(sig))
	}
	return err
}

// peakMiB is the server's greatest resident size so far, in MiB.
func (m *machine) peakMiB() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.server.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib / 1024
		}
	}
	return 0
}

// response is an answer read to its end.
type response struct {
	status    int
	header    http.Header
	body      []byte
	firstByte time.Duration // from the request to the first byte of the body
}

// client keeps connections open between requests and leaves compression to whoever asks for it.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}

func get(ctx context.Context, method, url string) (*response, error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	defer resp.Body.Close()
	r := &response{status: resp.StatusCode, header: resp.Header}
	first := make([]byte, 1)
	n, err := io.ReadFull(resp.Body, first)
	r.firstByte = time.Since(start)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	buf := bytes.NewBuffer(first[:n:n])
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	r.body = buf.Bytes()
	return r, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*logKept {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-logKept:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-2000):])
}
