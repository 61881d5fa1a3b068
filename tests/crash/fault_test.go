package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	bucketBytes = 64 << 20         // of the bucket that fills up
	noticeMax   = 30 * time.Second // until the health says that the bucket takes nothing
)

// TestBucketFull takes the bucket's space away and gives it back. Meanwhile nothing may be confirmed to Postgres,
// health must say that something is wrong, and clients wait. Every second time ingest is killed while it has what it
// could not store: what it had confirmed would be lost.
func TestBucketFull(t *testing.T) {
	t.Parallel()
	harness.Require(t)
	if os.Getuid() != 0 {
		t.Log("no file system of a fixed size can be mounted by this user: the bucket is made unwritable instead")
		testUnwritable(t)
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", bucketBytes)); err != nil {
		t.Fatalf("mount a small file system for the bucket: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	r := newRig(t, "file://"+filepath.Join(dir, "bucket"))
	for i := range 2 * scale() {
		r.load(t, loadMax)
		filler := filepath.Join(dir, "filler")
		fill(t, filler)
		r.notice(t)
		r.load(t, loadMax)
		if i%2 == 0 {
			r.ingest.Kill()
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			r.ingest.Start()
		}
		r.ingest.WaitActive()
		r.converge(t, fmt.Sprintf("the full bucket, %d", i+1))
	}
}

// testUnwritable is the same with the folder's permission.
func testUnwritable(t *testing.T) {
	r := newRig(t, "file://"+filepath.Join(t.TempDir(), "bucket")) // whatever kind of bucket the other tests use
	r.load(t, loadMax)
	chmodAll(t, r.folder(), 0o500)
	t.Cleanup(func() { chmodAll(t, r.folder(), 0o700) })
	r.notice(t)
	r.load(t, loadMax)
	chmodAll(t, r.folder(), 0o700)
	r.ingest.WaitActive()
	r.converge(t, "the unwritable bucket")
}

func chmodAll(t *testing.T, root string, mode os.FileMode) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes path until the file system has no space, down to the last byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
}

// notice waits until ingest's health is no longer active. An ingest that ends instead is started again by whoever
// runs it, so it is here as well.
func (r *rig) notice(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(noticeMax)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		code, status, err := r.ingest.Health(ctx)
		cancel()
		if ended(r.ingest) {
			t.Errorf("ingest ended: %v", r.ingest.Err())
			r.ingest.Start()
			return
		}
		if err == nil && status != "active" {
			t.Logf("health says %d %s", code, status)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("health says %d %s, %v although the bucket takes nothing", code, status, err)
			return
		}
		time.Sleep(healthPoll)
	}
}

// TestPostgresRestart restarts Postgres in order, then as a crash would.
func TestPostgresRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for i := range 2 * scale() {
		r.load(t, loadMax)
		if i%2 == 1 {
			r.db.Kill()
		}
		if err := r.db.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.load(t, loadMax)
		r.converge(t, fmt.Sprintf("restart %d of Postgres", i+1))
		if ended(r.ingest) {
			t.Fatalf("ingest ended with Postgres: %v", r.ingest.Err())
		}
	}
}
