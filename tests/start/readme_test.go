// Package start tests what a new user meets first: the commands of the README as printed, and the sentences that a
// wrong setting gets. It needs Postgres: run it with make e2e.
package start

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// readmeCommands returns the lines of the README's shell blocks.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	return pageCommands(t, "README.md")
}

// pageCommands are the lines of a page's sh blocks.
func pageCommands(t *testing.T, page string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(harness.Root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		lines = append(lines, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	return lines
}

// TestReadmeCommandsAreKnown: a command that is added to the README gets a test here, or this fails.
func TestReadmeCommandsAreKnown(t *testing.T) {
	want := []string{
		"make dev", // TestReadmeDev, but for the build
		"curl -s 'http://localhost:3000/v1/shape?table=heartbeats&offset=-1'",            // TestReadmeDev
		"bin/shapeline dev --database-url postgresql://user:password@localhost:5432/app", // TestReadmeOwnDatabase
		"make check", // CI
		"bin/shapeline ingest --database-url postgresql://user:password@localhost:5432/app --bucket file:///var/lib/shapeline", // TestReadmePlanes
		`bin/shapeline serve --bucket file:///var/lib/shapeline --secret "$SECRET" --listen :3000`,                             // TestReadmePlanes
	}
	if got := readmeCommands(t); !slices.Equal(got, want) {
		t.Errorf("the README has\n%q\nand the tests know\n%q", got, want)
	}
}

// proc is a run of the binary whose output is read line by line.
type proc struct {
	cmd   *exec.Cmd
	lines chan string // closed at the end of the output
}

// start runs a command of the README with some of its words replaced.
func start(t *testing.T, command string, replace map[string]string, extra ...string) *proc {
	t.Helper()
	words := strings.Fields(command)
	for i, w := range words {
		for old, now := range replace {
			w = strings.ReplaceAll(w, old, now)
		}
		words[i] = w
	}
	words = append(words, extra...)
	cmd := exec.Command(harness.Binary(t), words[1:]...)
	cmd.Dir = t.TempDir()
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SHAPELINE_") && !strings.HasPrefix(kv, "ELECTRIC_") && !strings.HasPrefix(kv, "DATABASE_URL") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{cmd: cmd, lines: make(chan string, 10000)}
	done := make(chan struct{})
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	go func() { _ = cmd.Wait(); _ = w.Close(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the process did not end within 20 s of Ctrl-C")
			_ = cmd.Process.Kill()
			<-done
		}
	})
	return p
}

// await returns the first line that has the text.
func (p *proc) await(t *testing.T, text string) string {
	t.Helper()
	var seen []string
	late := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			seen = append(seen, line)
			if strings.Contains(line, text) {
				return line
			}
			if !ok {
				t.Fatalf("it ended without saying %q, but:\n%s", text, strings.Join(seen, "\n"))
			}
		case <-late:
			t.Fatalf("it did not say %q, but:\n%s", text, strings.Join(seen, "\n"))
		}
	}
}

// keys fetches a URL until it answers 200, and returns the keys of its rows.
func keys(t *testing.T, url string) (keys []string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // a new process; nothing tells us
		resp, err := http.Get(url)
		if err == nil && resp.StatusCode == http.StatusOK {
			defer resp.Body.Close()
			var items []struct{ Key string }
			if err := json.NewDecoder(resp.Body).Decode(&items); err != nil {
				t.Fatal(err)
			}
			for _, i := range items {
				if i.Key != "" {
					keys = append(keys, i.Key)
				}
			}
			slices.Sort(keys)
			return keys
		}
		if err == nil {
			resp.Body.Close()
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		if time.Now().After(end) {
			t.Fatalf("GET %s: %v", url, err)
		}
	}
}

// TestReadmeDev: without a database, the printed curl brings the sample rows, and Ctrl-C leaves nothing running.
func TestReadmeDev(t *testing.T) {
	harness.Require(t)
	p := start(t, "shapeline dev", nil, "--listen", "127.0.0.1:"+strconv.Itoa(harness.FreePort(t)))
	line := p.await(t, "curl -s '")
	url := strings.Split(line, "'")[1]
	readme := readmeCommands(t)[1]
	port := regexp.MustCompile(`localhost:\d+`)
	if got, want := strings.TrimSpace(port.ReplaceAllString(line, "")), port.ReplaceAllString(readme, ""); got != want {
		t.Errorf("it prints %q, the README has %q", got, want)
	}
	want := []string{`"public"."heartbeats"/"1"`, `"public"."heartbeats"/"2"`, `"public"."heartbeats"/"3"`}
	if got := keys(t, url); !slices.Equal(got, want) {
		t.Errorf("rows %q", got)
	}
	children := childrenOf(t, p.cmd.Process.Pid)
	if len(children) == 0 {
		t.Error("no Postgres runs below it")
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range p.lines { // until its end
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d still runs after Ctrl-C", pid)
		}
	}
}

// childrenOf returns the processes whose parent is pid.
func childrenOf(t *testing.T, pid int) (children []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Skip("no /proc to look for processes in; make check on Linux does")
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, rest, ok := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, child)
		}
	}
	return children
}

func TestReadmeOwnDatabase(t *testing.T) {
	harness.Require(t)
	db := harness.Postgres(t, nil)
	db.Exec(t, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (7)")
	addr := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	start(t, readmeCommands(t)[2], map[string]string{"postgresql://user:password@localhost:5432/app": db.URL()}, "--listen", addr)
	if got := keys(t, "http://"+addr+"/v1/shape?table=items&offset=-1"); !slices.Equal(got, []string{`"public"."items"/"7"`}) {
		t.Errorf("rows %q", got)
	}
}

func TestReadmePlanes(t *testing.T) {
	harness.Require(t)
	db := harness.Postgres(t, nil)
	db.Exec(t, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (7)")
	port := strconv.Itoa(harness.FreePort(t))
	replace := map[string]string{
		"postgresql://user:password@localhost:5432/app": db.URL(), "file:///var/lib/shapeline": harness.Bucket(t),
		`"$SECRET"`: "hush", ":3000": "127.0.0.1:" + port,
	}
	start(t, readmeCommands(t)[4], replace, "--listen", "127.0.0.1:0").await(t, "following the replication stream")
	start(t, readmeCommands(t)[5], replace).await(t, "listening")
	url := "http://127.0.0.1:" + port + "/v1/shape?table=items&offset=-1"
	if got := keys(t, url+"&secret=hush"); !slices.Equal(got, []string{`"public"."items"/"7"`}) {
		t.Errorf("rows %q", got)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the secret: status %d", resp.StatusCode)
	}
}

// refused runs the binary until it ends, and returns what it said.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.Binary(t), args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Errorf("%q: %v, %v; it said\n%s", args, err, ctx.Err(), out)
	}
	return string(out)
}
