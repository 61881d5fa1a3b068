package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The servers of S3 that tests start. infra/need.sh installs them.
const (
	MinIO     = "minio"
	VersityGW = "versitygw"
)

// Credentials of every server that tests start.
const (
	StoreUser     = "shapeline"
	StorePassword = "not-a-secret-at-all"
)

const storeStartMax = 60 * time.Second // a cold start on a busy machine

// StoreServer is a running server of S3 with its data in a folder.
type StoreServer struct {
	Kind string
	Addr string // host:port on loopback

	dir string
	log logBuffer

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// stores are the servers that the tests of this process share, by kind. Main ends them.
var stores struct {
	mu     sync.Mutex
	shared map[string]*StoreServer
}

// Store returns a server that all tests of the process share.
func Store(t testing.TB, kind string) *StoreServer {
	t.Helper()
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if s := stores.shared[kind]; s != nil {
		return s
	}
	dir, err := os.MkdirTemp("", "shapeline-store-")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, kind, dir, FreePort(t))
	if stores.shared == nil {
		stores.shared = make(map[string]*StoreServer)
	}
	stores.shared[kind] = s
	return s
}

// OwnStore starts a server for one test, which may end it and start it again.
func OwnStore(t testing.TB, kind string) *StoreServer {
	t.Helper()
	s := newStore(t, kind, t.TempDir(), FreePort(t))
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", kind, indent(s.log.tail(logLinesMax)))
		}
	})
	return s
}

func newStore(t testing.TB, kind, dir string, port int) *StoreServer {
	t.Helper()
	s := &StoreServer{Kind: kind, Addr: fmt.Sprintf("127.0.0.1:%d", port), dir: dir}
	if err := s.Start(Root(t)); err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	return s
}

// storeBinary finds a server where infra/need.sh puts it, or on the path.
func storeBinary(root, kind string) (string, error) {
	if path := filepath.Join(root, ".tools", "bin", kind); exec.Command(path, "--version").Run() == nil {
		return path, nil
	}
	path, err := exec.LookPath(kind)
	if err != nil {
		return "", fmt.Errorf("%w: run infra/need.sh %s", err, kind)
	}
	return path, nil
}

// Start runs the server, which must not be running, and waits until it answers. root is the checkout.
func (s *StoreServer) Start(root string) error {
	path, err := storeBinary(root, s.Kind)
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	var cmd *exec.Cmd
	switch s.Kind {
	case MinIO:
		cmd = exec.Command(path, "server", "--quiet", "--address", s.Addr, data)
	case VersityGW:
		cmd = exec.Command(path, "--port", s.Addr, "posix", data)
	default:
		return fmt.Errorf("no server is called %q", s.Kind)
	}
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+StoreUser, "MINIO_ROOT_PASSWORD="+StorePassword,
		"ROOT_ACCESS_KEY="+StoreUser, "ROOT_SECRET_KEY="+StorePassword, "MINIO_UPDATE=off", "MINIO_BROWSER=off")
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { // ends with the process, which Kill waits for
		defer close(exited)
		_ = cmd.Wait()
	}()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	return s.ready(exited)
}

// ready waits until the server answers anything.
func (s *StoreServer) ready(exited <-chan struct{}) error {
	limit := time.NewTimer(storeStartMax)
	defer limit.Stop()
	tick := time.NewTicker(healthPoll)
	defer tick.Stop()
	for {
		res, err := http.Get("http://" + s.Addr + "/")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusServiceUnavailable {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("it ended at once:\n%s", s.log.tail(logLinesMax))
		case <-limit.C:
			return fmt.Errorf("it does not answer within %s (%v):\n%s", storeStartMax, err, s.log.tail(logLinesMax))
		}
	}
}

// Kill ends the server at once and waits for its end.
func (s *StoreServer) Kill() {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill() // it may have ended
		<-exited
	}
}

// Pause stops the server as SIGSTOP does: connections are taken, and nothing is answered.
func (s *StoreServer) Pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *StoreServer) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// NewBucket makes an empty bucket and returns its name.
func (s *StoreServer) NewBucket(t testing.TB) string {
	t.Helper()
	client, err := minio.New(s.Addr, &minio.Options{Creds: credentials.NewStaticV4(StoreUser, StorePassword, "")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeStartMax)
	defer cancel()
	name := fmt.Sprintf("test-%d", time.Now().UnixNano())
	for {
		err := client.MakeBucket(ctx, name, minio.MakeBucketOptions{})
		if err == nil {
			return name
		}
		// A server that has just begun to listen may not be ready for more.
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "initialized") {
			t.Fatalf("make a bucket on %s: %v", s.Kind, err)
		}
	}
}

// URL is the URL of a bucket through the driver that tests use with the server: MinIO is reached by minio://, and
// VersityGW by s3://, so that both drivers are.
func (s *StoreServer) URL(bucket string) string {
	if s.Kind == MinIO {
		return fmt.Sprintf("minio://%s/%s/some/prefix?tls=false", s.Addr, bucket)
	}
	return fmt.Sprintf("s3://%s/some/prefix", bucket)
}

// Env is what a process needs to reach the server.
func (s *StoreServer) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + StoreUser, "AWS_SECRET_ACCESS_KEY=" + StorePassword, "AWS_REGION=us-east-1",
		"AWS_ENDPOINT_URL_S3=http://" + s.Addr, "AWS_EC2_METADATA_DISABLED=true", "SHAPELINE_REQUESTS_INTERVAL=100ms"}
}

// storeKind is the kind of bucket that the tests of this process use: SHAPELINE_TEST_STORE, or a folder.
func storeKind() string { return os.Getenv("SHAPELINE_TEST_STORE") }

// storeEnv is what processes of the product need to reach the bucket that Bucket made.
func storeEnv() []string {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	if s := stores.shared[storeKind()]; s != nil {
		return s.Env()
	}
	return nil
}

// endStores ends the servers that tests share, and removes their data.
func endStores() {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	for _, s := range stores.shared {
		s.Kill()
		_ = os.RemoveAll(s.dir) // the temporary folder is swept anyhow
	}
}
