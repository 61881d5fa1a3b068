//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startMax     = 60 * time.Second      // initdb and the start, on a slow and busy machine
	readyPoll    = 20 * time.Millisecond // between looks at the pid file
	fastMax      = 15 * time.Second      // a fast shutdown, which waits for walsenders and a checkpoint
	immediateMax = 5 * time.Second       // an immediate shutdown, before SIGKILL
	portTriesMax = 5                     // a free port may be taken before Postgres binds it
)

// Server is a running cluster. Its methods are for one goroutine at a time.
type Server struct {
	opt  Options
	bin  string // folder of the binaries
	root string // our folder, removed by Stop
	data string // the data folder, inside root
	port int
	cred *syscall.Credential // nil: as ourselves
	log  *tailWriter
	proc *process // nil: not running
}

// Start makes a cluster and returns when it accepts connections. ctx bounds the start alone: the server runs until
// Stop. The error is ErrNoBinaries where no server is installed. After an error nothing runs and no folder is left.
func Start(ctx context.Context, opt Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	if opt.User == "" {
		opt.User = "postgres"
	}
	if opt.Password == "" {
		opt.Password = "password"
	}
	bin, err := findBinaries(ctx, opt.BinDir)
	if err != nil {
		return nil, err
	}
	s := &Server{opt: opt, bin: bin, log: &tailWriter{next: opt.Log}}
	if s.cred, err = credential(); err != nil {
		return nil, err
	}
	if err := s.makeRoot(); err != nil {
		return nil, err
	}
	if err := s.initdb(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.root))
	}
	if err := s.startOnFreePort(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.root))
	}
	return s, nil
}

// URL is the connection string of the superuser, with the password.
func (s *Server) URL() string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(s.opt.User, s.opt.Password),
		Host:     fmt.Sprintf("127.0.0.1:%d", s.port),
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}
	// The scheme that the documentation of most clients uses; all of them take both.
	return strings.Replace(u.String(), "postgres://", "postgresql://", 1)
}

// Stop shuts the server down and removes its folder. It may be called on a server that has stopped already, and
// twice.
func (s *Server) Stop() error {
	s.shutdown(syscall.SIGINT)
	if err := os.RemoveAll(s.root); err != nil {
		return fmt.Errorf("remove the cluster: %w", err)
	}
	return nil
}

// Kill stops the server as a crash would: no checkpoint, no goodbye to its clients. Its data stays, and Restart
// recovers it.
func (s *Server) Kill() { s.shutdown(syscall.SIGQUIT) }

// Restart stops the server in order, if it runs, and starts it again with the same data and port.
func (s *Server) Restart(ctx context.Context) error {
	s.shutdown(syscall.SIGINT)
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	return s.start(ctx)
}

// Exited returns a channel that is closed when the server that runs now has ended, whoever ended it. It is nil when
// none runs.
func (s *Server) Exited() <-chan struct{} {
	if s.proc == nil {
		return nil
	}
	return s.proc.exited
}

// makeRoot makes the folder that everything is in, where the server's user can reach it.
func (s *Server) makeRoot() error {
	for _, parent := range []string{s.opt.Dir, os.TempDir(), "/tmp", "/var/tmp"} {
		if parent == "" {
			continue
		}
		abs, err := filepath.Abs(parent)
		if err != nil {
			return fmt.Errorf("find the folder for the cluster: %w", err)
		}
		if s.cred != nil && !reachable(abs) {
			continue
		}
		if s.root, err = os.MkdirTemp(abs, "shapeline-pg-"); err != nil {
			return fmt.Errorf("make the cluster's folder: %w", err)
		}
		s.data = filepath.Join(s.root, "data")
		if s.cred == nil {
			return nil
		}
		if err := os.Chown(s.root, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return errors.Join(fmt.Errorf("hand over the cluster's folder: %w", err), os.RemoveAll(s.root))
		}
		return nil
	}
	return errors.New("no temporary folder that the server's user can reach: set TMPDIR to one")
}

// reachable reports whether everybody can pass through every folder down to dir.
func reachable(dir string) bool {
	for {
		fi, err := os.Stat(dir)
		if err != nil || !fi.IsDir() || fi.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// initdb makes the cluster, with Unicode case rules where the machine has the locale for them.
func (s *Server) initdb(ctx context.Context) error {
	pw := filepath.Join(s.root, "password")
	if err := os.WriteFile(pw, []byte(s.opt.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the password file: %w", err)
	}
	defer os.Remove(pw)
	if s.cred != nil {
		if err := os.Chown(pw, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return fmt.Errorf("hand over the password file: %w", err)
		}
	}
	var out []byte
	var err error
	for _, locale := range []string{"C.UTF-8", "C"} {
		cmd := s.command("initdb", "-D", s.data, "--no-sync", "--encoding=UTF8", "--locale="+locale,
			"--username="+s.opt.User, "--pwfile="+pw, "--auth=scram-sha-256")
		if out, err = output(ctx, cmd); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(string(out)))
}

func (s *Server) startOnFreePort(ctx context.Context) error {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		s.port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return fmt.Errorf("free the port: %w", err)
		}
		err = s.start(ctx)
		if err == nil || ctx.Err() != nil || try == portTriesMax || !s.log.contains("in use") {
			return err
		}
	}
}

// arguments are the server's settings: what replication needs, then what suits a throwaway, then the caller's.
func (s *Server) arguments() []string {
	set := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    fmt.Sprint(s.port),
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_wal_senders":         "24",
		"max_replication_slots":   "24",
		"fsync":                   "off",
		"full_page_writes":        "off",
		"shared_buffers":          "64MB",
		"timezone":                "UTC",
		"logging_collector":       "off",
	}
	for k, v := range s.opt.Settings {
		set[k] = v
	}
	args := []string{"-D", s.data}
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		args = append(args, "-c", k+"="+set[k])
	}
	return args
}

// start runs the server on s.port and waits until it accepts connections.
func (s *Server) start(ctx context.Context) error {
	pidFile := filepath.Join(s.data, "postmaster.pid")
	s.log.reset()
	cmd := s.command("postgres", s.arguments()...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	proc, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.proc = proc
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		select {
		case <-proc.exited:
			s.proc = nil
			return fmt.Errorf("postgres ended as it started: %s", s.log.tail())
		case <-ctx.Done():
			s.shutdown(syscall.SIGQUIT)
			return fmt.Errorf("wait for postgres: %w: %s", ctx.Err(), s.log.tail())
		case <-poll.C:
			if ready(pidFile, proc.cmd.Process.Pid) {
				return nil
			}
		}
	}
}

// ready reports whether the pid file is pid's own, not one that a crash left behind, and says in its eighth line that
// connections are accepted.
func ready(pidFile string, pid int) bool {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return false // not written yet
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// shutdown sends the first signal and, as patience ends, the harder ones. It returns when the server has ended.
func (s *Server) shutdown(first syscall.Signal) {
	if s.proc == nil {
		return
	}
	if first == syscall.SIGINT && s.proc.signal(syscall.SIGINT, fastMax) {
		s.proc = nil
		return
	}
	if !s.proc.signal(syscall.SIGQUIT, immediateMax) {
		s.proc.kill()
	}
	s.proc = nil
}
