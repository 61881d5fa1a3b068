package dir_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/dir"
	"github.com/shapeline/shapeline/internal/object/objecttest"
)

func open(t testing.TB, root string) *dir.Dir {
	t.Helper()
	d, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	root := t.TempDir()
	objecttest.Conform(t, func() object.Store { return open(t, root) })
	left, err := os.ReadDir(filepath.Join(root, "~tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v, %v", left, err)
	}
	// What the suite deleted leaves no empty folders.
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 2 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestOpenMakesTheDirectory(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b")
	if _, err := open(t, root).Put(t.Context(), "control", []byte("{}"), object.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "control")); err != nil || string(b) != "{}" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestOpenSweepsOldTemporaryFiles(t *testing.T) {
	root := t.TempDir()
	open(t, root)
	young, old := filepath.Join(root, "~tmp", "young"), filepath.Join(root, "~tmp", "old")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	if _, err := os.Stat(young); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old file is still there: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(file); err == nil {
		t.Error("a file was opened as a directory")
	}
	if os.Getuid() == 0 {
		t.Skip("root may write anywhere; run as another user to test the message about permissions")
	}
	shut := filepath.Join(root, "shut")
	if err := os.Mkdir(shut, 0o555); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Open(shut); err == nil || !strings.Contains(err.Error(), "--bucket") {
		t.Errorf("got %v, want a remedy", err)
	}
}

func TestAKeyIsNoFolderOfAnother(t *testing.T) {
	d := open(t, t.TempDir())
	for _, c := range []struct {
		key  string
		cond object.Condition
		ok   bool
	}{
		{"a/b/c", object.IfAbsent(), true},
		{"a/b", object.IfAbsent(), false}, {"a/b", object.Always(), false}, {"a/b", object.IfMatch("0-0"), false},
		{"a/b/c/d", object.IfAbsent(), false}, {"a/b/c/d", object.Always(), false},
	} {
		_, err := d.Put(t.Context(), c.key, nil, c.cond)
		if (err == nil) != c.ok || errors.Is(err, object.ErrExists) {
			t.Errorf("put %s: %v", c.key, err)
		}
	}
}

func TestFull(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{{syscall.ENOSPC, true}, {syscall.EIO, false}, {dir.ErrLost, false}} {
		if got := errors.Is(dir.Full(&fs.PathError{Op: "write", Path: "x", Err: c.err}), object.ErrFull); got != c.want {
			t.Errorf("%v: full is %t", c.err, got)
		}
	}
}

const (
	racerEnv    = "SHAPELINE_TEST_RACER" // the directory; makes the test binary a racing process
	raceKeys    = 200
	raceSwaps   = 100
	raceCounter = "counter"
)

func TestMain(m *testing.M) {
	root := os.Getenv(racerEnv)
	if root == "" {
		os.Exit(m.Run())
	}
	if err := racer(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// racer is what each process does: it says that it is ready, waits for a line, and prints the keys that it won.
func racer(root string) error {
	d, err := dir.Open(root)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	ctx := context.Background()
	for i := range raceKeys {
		_, err := d.Put(ctx, raceKey(i), fmt.Append(nil, os.Getpid()), object.IfAbsent())
		if err == nil {
			fmt.Println("won", i)
		} else if !errors.Is(err, object.ErrExists) {
			return err
		}
	}
	for done := 0; done < raceSwaps; {
		o, err := d.Get(ctx, raceCounter, object.Range{})
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(o.Body))
		if err != nil {
			return err
		}
		_, err = d.Put(ctx, raceCounter, strconv.AppendInt(nil, int64(n+1), 10), object.IfMatch(o.ETag))
		if err == nil {
			done++
		} else if !errors.Is(err, object.ErrChanged) {
			return err
		}
	}
	return nil
}

func raceKey(i int) string { return fmt.Sprintf("log/%016x", i) }

// TestProcesses races two processes for the same keys: each is created once, and no swap is lost.
func TestProcesses(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	if _, err := d.Put(t.Context(), raceCounter, []byte("0"), object.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	const processes = 2
	var outs [processes]*bufio.Reader
	var cmds [processes]*exec.Cmd
	var starts [processes]io.Writer
	for i := range cmds {
		cmds[i] = exec.CommandContext(t.Context(), os.Args[0])
		cmds[i].Env = append(os.Environ(), racerEnv+"="+root)
		cmds[i].Stderr = os.Stderr
		out, err := cmds[i].StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		outs[i] = bufio.NewReader(out)
		if starts[i], err = cmds[i].StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, out := range outs {
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("a process said %q: %v", line, err)
		}
	}
	for _, start := range starts {
		if _, err := io.WriteString(start, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	winners := make(map[int]int)
	for i, cmd := range cmds {
		for lines := bufio.NewScanner(outs[i]); lines.Scan(); {
			var key int
			if _, err := fmt.Sscanf(lines.Text(), "won %d", &key); err != nil {
				t.Fatal(err)
			}
			if _, twice := winners[key]; twice {
				t.Errorf("key %d was created twice", key)
			}
			winners[key] = cmd.Process.Pid
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range raceKeys {
		o, err := d.Get(t.Context(), raceKey(i), object.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(o.Body), strconv.Itoa(winners[i]); got != want {
			t.Errorf("key %d: process %s is in it, process %s won it", i, got, want)
		}
	}
	o, err := d.Get(t.Context(), raceCounter, object.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(processes * raceSwaps); string(o.Body) != want {
		t.Errorf("the counter is %s, want %s", o.Body, want)
	}
}

// BenchmarkPut is a durable create: temporary file, two fsyncs, link.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			d := open(b, b.TempDir())
			body := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := d.Put(b.Context(), raceKey(i), body, object.IfAbsent()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkProbe is a Get of the next segment before it is there.
func BenchmarkProbe(b *testing.B) {
	d := open(b, b.TempDir())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Get(b.Context(), raceKey(0), object.Range{}); !errors.Is(err, object.ErrNotFound) {
			b.Fatal(err)
		}
	}
}

// TestOpensAtTheSameTime: processes that start together do not sweep away what the others are writing.
func TestOpensAtTheSameTime(t *testing.T) {
	for range 20 {
		root := t.TempDir()
		errs := make(chan error)
		for range 8 {
			go func() {
				_, err := dir.Open(root)
				errs <- err
			}()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
	}
}
