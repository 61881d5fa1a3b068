//go:build unix

package localpg

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tailBytesMax is what is kept of the log for error texts.
const tailBytesMax = 4 << 10

// process is a started command. The goroutine that started it waits for it.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and its output was read
}

// startProcess starts cmd and returns when it runs. The start and the wait are on one locked thread, because the
// kernel's "parent has died" means the thread that forked.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			// The status says nothing: every way of ending it is our own, and a failed start is in the log.
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, err
	}
	return p, nil
}

// signal sends sig and reports whether the process ended within patience.
func (p *process) signal(sig syscall.Signal, patience time.Duration) bool {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.exited:
		return true
	case <-late.C:
		return false
	}
}

// kill ends the whole process group and waits. The server's children notice the death of their parent.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	<-p.exited
}

// output runs cmd to its end and returns what it printed; an expired ctx kills it.
func output(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
		return buf.Bytes(), ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return buf.Bytes(), errors.New(cmd.ProcessState.String())
	}
	return buf.Bytes(), nil
}

// command prepares a program of the server: as its user, in its folder, in a process group of its own.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.root
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.cred}
	dieWithParent(cmd.SysProcAttr)
	cmd.WaitDelay = immediateMax // a child of a killed server may hold the log open for a moment
	return cmd
}

// credential returns whom the server runs as: nil, meaning ourselves, unless we are root.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("a Postgres server does not run as root, and there is no user postgres or nobody: " +
		"run as another user or set DATABASE_URL")
}

// tailWriter passes a log on and keeps its end.
type tailWriter struct {
	next io.Writer

	mu  sync.Mutex
	buf []byte
}

// Write never fails, because a failed write would stop the copying and block the server.
func (w *tailWriter) Write(b []byte) (int, error) {
	if w.next != nil {
		_, _ = w.next.Write(b)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	if over := len(w.buf) - tailBytesMax; over > 0 {
		w.buf = append(w.buf[:0], w.buf[over:]...)
	}
	return len(b), nil
}

func (w *tailWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(string(w.buf))
}

func (w *tailWriter) contains(s string) bool { return strings.Contains(w.tail(), s) }

func (w *tailWriter) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = w.buf[:0]
}
