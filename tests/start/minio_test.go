package start

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const minioPage = "docs/self-host-with-minio.md"

// TestMinIOPage runs the commands of the page in order, in a folder where the paths in it lead to what was built.
func TestMinIOPage(t *testing.T) {
	harness.Require(t)
	root := harness.Root(t)
	dir := t.TempDir()
	for name, to := range map[string]string{
		"infra": filepath.Join(root, "infra"), ".tools": filepath.Join(root, ".tools"), "bin/shapeline": harness.Binary(t),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	server := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	export := ""
	var known []string
	for _, command := range pageCommands(t, minioPage) {
		known = append(known, firstWords(command))
		line := strings.ReplaceAll(command, "localhost:9000", server)
		switch {
		case strings.HasPrefix(line, "export "):
			export = line + "; "
		case strings.Contains(line, "minio server"):
			background(t, dir, line)
			awaitServer(t, server)
		case strings.Contains(line, "shapeline dev"):
			addr := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
			stop := background(t, dir, export+line+" --listen "+addr)
			if got := keys(t, "http://"+addr+"/v1/shape?table=heartbeats&offset=-1"); len(got) != 3 {
				t.Errorf("%s: rows %q", command, got)
			}
			stop()
		default:
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			cmd := exec.CommandContext(ctx, "bash", "-c", export+line)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			cancel()
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		}
	}
	want := []string{"infra/need.sh", "MINIO_ROOT_USER=shapeline", "curl", "export", "bin/shapeline dev", "AWS_ENDPOINT_URL_S3=http://localhost:9000",
		"bin/shapeline bucket", "bin/shapeline bucket", "bin/shapeline bucket", "bin/shapeline bucket"}
	if !slices.Equal(known, want) {
		t.Errorf("the page has\n%q\nand the test knows\n%q", known, want)
	}
}

// firstWords names a command for TestMinIOPage.
func firstWords(command string) string {
	words := strings.Fields(command)
	if words[0] == "bin/shapeline" {
		return words[0] + " " + words[1]
	}
	return words[0]
}

// background runs a command until stop or the end of the test.
func background(t *testing.T, dir, line string) (stop func()) {
	t.Helper()
	var out strings.Builder
	for _, program := range []string{"bin/shapeline", ".tools/bin/minio"} { // in place of the shell, so that signals reach it
		line = strings.Replace(line, program, "exec "+program, 1)
	}
	if before, after, ok := strings.Cut(line, "exec "); ok && strings.Contains(before, "=") && !strings.HasPrefix(line, "export ") {
		line = "export " + before + "; exec " + after
	}
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", line, out.String())
		}
	}
	t.Cleanup(stop)
	return stop
}

func awaitServer(t *testing.T, addr string) {
	t.Helper()
	var d net.Dialer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // a process of somebody else's: there is nothing to wait on
	}
	t.Fatalf("nothing listens on %s", addr)
}
