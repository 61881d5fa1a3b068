package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	activeMax   = 60 * time.Second      // from the start of a process to its health being active
	stopMax     = 20 * time.Second      // from SIGTERM to the end
	healthPoll  = 20 * time.Millisecond // between looks at the health
	logBytesMax = 4 << 20               // what is kept of a process's log
	logLinesMax = 150                   // what is printed of it when the test fails
)

// Options says how a process of the product runs. Zero fields are left out of its command line.
type Options struct {
	DatabaseURL string
	Bucket      string            // a URL, as Bucket makes it
	Secret      string            // for ingest and serve; "" means --insecure
	IngestURL   string            // for serve: where it has the feed from
	Port        int               // 0: a free one, kept over restarts
	Env         map[string]string // besides the environment, in which no setting of the product is left
	Args        []string          // further flags
	Standby     bool              // do not wait until the health is active
}

// Process is one process of the product, which may be ended and started again with the same port and settings.
// Its methods may be called from several goroutines, one of which starts and ends it at a time.
type Process struct {
	Name string // dev, ingest, serve
	URL  string // of its HTTP, without a slash at the end

	t    testing.TB
	bin  string
	args []string
	env  []string
	log  logBuffer

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil before the first start
	exited chan struct{} // closed when cmd has ended
	err    error         // of the wait, once exited is closed
}

// Dev starts `shapeline dev` and waits until it is active.
func Dev(t testing.TB, opt Options) *Process { return newProcess(t, "dev", opt) }

// Ingest starts `shapeline ingest` and waits until it is active.
func Ingest(t testing.TB, opt Options) *Process {
	if opt.Secret == "" {
		opt.Args = append(slices.Clone(opt.Args), "--insecure")
	}
	return newProcess(t, "ingest", opt)
}

// Serve starts `shapeline serve` and waits until it is active.
func Serve(t testing.TB, opt Options) *Process {
	if opt.Secret == "" {
		opt.Args = append(slices.Clone(opt.Args), "--insecure")
	}
	return newProcess(t, "serve", opt)
}

func newProcess(t testing.TB, name string, opt Options) *Process {
	t.Helper()
	if opt.Port == 0 {
		opt.Port = FreePort(t)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", opt.Port)
	p := &Process{Name: name, URL: "http://" + addr, t: t, bin: Binary(t), args: []string{name, "--listen", addr}}
	for _, f := range [][2]string{
		{"--database-url", opt.DatabaseURL}, {"--bucket", opt.Bucket}, {"--secret", opt.Secret},
		{"--ingest-url", opt.IngestURL},
	} {
		if f[1] != "" {
			p.args = append(p.args, f[0], f[1])
		}
	}
	p.args = append(p.args, opt.Args...)
	for _, kv := range os.Environ() {
		if kv, _, _ := strings.Cut(kv, "="); kv == "DATABASE_URL" || strings.HasPrefix(kv, "ELECTRIC_") ||
			strings.HasPrefix(kv, "SHAPELINE_") || strings.HasPrefix(kv, "PG") {
			continue
		}
		p.env = append(p.env, kv)
	}
	p.env = append(p.env, storeEnv()...)
	for k, v := range opt.Env {
		p.env = append(p.env, k+"="+v)
	}
	t.Cleanup(func() {
		p.Kill()
		for _, cry := range []string{"WARNING: DATA RACE", "panic: ", "panic serving"} {
			if found, _ := p.log.find(cry); found {
				t.Errorf("%s said %q", name, cry)
			}
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, indent(p.log.tail(logLinesMax)))
		}
	})
	p.Start()
	if !opt.Standby {
		p.WaitActive()
	}
	return p
}

// Start runs the process, which must not be running. It does not wait for its health.
func (p *Process) Start() {
	p.t.Helper()
	p.log.mark("--- started " + strings.Join(p.args, " "))
	cmd := exec.Command(p.bin, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	cmd.WaitDelay = stopMax // `dev` may leave a Postgres that holds the pipe
	started, exited := make(chan error, 1), make(chan struct{})

	p.mu.Lock()
	if p.cmd != nil && !closed(p.exited) {
		p.mu.Unlock()
		p.t.Fatalf("%s is running already", p.Name)
	}
	p.cmd, p.exited, p.err = cmd, exited, nil
	p.mu.Unlock()

	go func() {
		defer close(exited)
		// The kernel ends the child with the thread that forked it, so that thread waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
		}
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}()
	if err := <-started; err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
}

// Kill ends the process as SIGKILL does, and waits. It does nothing to one that has ended.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.Exited()
}

// Stop asks the process to end, as Ctrl-C in its own terminal would, and fails the test if it does not end in time
// or not with status 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	late := time.NewTimer(stopMax)
	defer late.Stop()
	select {
	case <-p.Exited():
		if err := p.Err(); err != nil {
			p.t.Errorf("%s ended with %v", p.Name, err)
		}
	case <-late.C:
		p.Kill()
		p.t.Errorf("%s did not end within %s", p.Name, stopMax)
	}
}

// Pause stops the process where it stands, as SIGSTOP does; Resume lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

// Exited returns a channel that is closed when the process, as last started, has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// Err is how the process ended; nil while it runs and after status 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// PID is the number of the process as last started.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if closed(exited) {
		return
	}
	_ = cmd.Process.Signal(sig) // it may have ended meanwhile
}

// WaitActive waits until the health is active and fails the test if the process ends or takes too long.
func (p *Process) WaitActive() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), activeMax)
	defer cancel()
	if err := p.Wait(ctx, "active"); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits until the health's status is want: starting, waiting or active.
func (p *Process) Wait(ctx context.Context, want string) error {
	poll := time.NewTicker(healthPoll)
	defer poll.Stop()
	last := "nothing"
	for {
		if _, status, err := p.Health(ctx); err != nil {
			last = err.Error()
		} else if last = status; status == want {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.Exited():
			return fmt.Errorf("%s ended (%v) before it was %s", p.Name, p.Err(), want)
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s: %w; the last answer was %s", p.Name, want, ctx.Err(), last)
		}
	}
}

// Health asks /v1/health once and returns the HTTP status and the status in the body.
func (p *Process) Health(ctx context.Context) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectMax)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/v1/health", nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var body struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(b, &body); err != nil {
		return 0, "", fmt.Errorf("health %d %q: %w", resp.StatusCode, b, err)
	}
	return resp.StatusCode, body.Status, nil
}

// WaitLog waits for a line with text that the process writes after its last start.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	for {
		found, more := p.log.find(text)
		if found {
			return nil
		}
		select {
		case <-more:
		case <-p.Exited():
			if found, _ := p.log.find(text); found {
				return nil
			}
			return fmt.Errorf("%s ended (%v) without saying %q", p.Name, p.Err(), text)
		case <-ctx.Done():
			return fmt.Errorf("%s has not said %q: %w", p.Name, text, ctx.Err())
		}
	}
}

// Log is what the process has written, standard output and error together, over all its starts.
func (p *Process) Log() string { return p.log.tail(0) }

// PeakRSS is the largest resident memory of the process as last started, in bytes; Linux only, 0 elsewhere.
func (p *Process) PeakRSS() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// logBuffer keeps the end of a log. The zero value is ready.
type logBuffer struct {
	mu    sync.Mutex
	buf   []byte
	since int           // where the last start begins in buf
	more  chan struct{} // closed at the next write
}

// Write keeps b.
func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	if over := len(l.buf) - logBytesMax; over > logBytesMax/4 { // now and then, not at every line
		l.buf = slices.Delete(l.buf, 0, over)
		l.since = max(0, l.since-over)
	}
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(b), nil
}

// mark writes a line and begins what find looks at.
func (l *logBuffer) mark(line string) {
	if _, err := io.WriteString(l, line+"\n"); err != nil {
		panic(err) // memory does not fail
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = len(l.buf)
}

// find reports whether text has been written since the last mark; more is closed when there is more to look at.
func (l *logBuffer) find(text string) (found bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Contains(l.buf[l.since:], []byte(text)) {
		return true, nil
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return false, l.more
}

// tail returns the last lines, or all that is kept for 0.
func (l *logBuffer) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := len(l.buf)
	for n := 0; lines > 0 && at > 0; at-- {
		if l.buf[at-1] == '\n' {
			if n++; n > lines {
				break
			}
		}
	}
	if lines == 0 {
		at = 0
	}
	return string(l.buf[at:])
}
