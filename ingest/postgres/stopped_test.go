//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A holder that is stopped, with its socket open and its kernel still answering, loses the stream to the one that
// waits, and learns it when it is woken.
func TestStoppedHolderIsReplaced(t *testing.T) {
	for _, starts := range []string{"", "yes"} {
		t.Run("streaming="+starts, func(t *testing.T) {
			t.Parallel()
			c := config(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "POSTGRES_TEST_HOLDER="+c.StreamID+" "+c.URL, "POSTGRES_TEST_HOLDER_STARTS="+starts)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			if !lines.Scan() || lines.Text() != "holding" {
				t.Fatalf("holder says %q", lines.Text())
			}
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			stopped := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var reasons []string
			s, err := open(t, c).Acquire(ctx, func(reason string) { reasons = append(reasons, reason) })
			if err != nil {
				t.Fatalf("not taken over after %s: %v", time.Since(stopped), err)
			}
			defer s.Close(t.Context())
			if err := s.Start(ctx, 0); err != nil {
				t.Fatal(err)
			}
			if len(reasons) == 0 || !strings.Contains(reasons[0], "another process has replication stream") {
				t.Errorf("reasons to wait: %q", reasons)
			}
			t.Logf("taken over after %s", time.Since(stopped))

			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			// It may have noticed, said so and ended by itself.
			if _, err := stdin.Write([]byte("\n")); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
			if !lines.Scan() || !strings.HasPrefix(lines.Text(), "lost ") || lines.Text() == "lost <nil>" {
				t.Errorf("the woken holder says %q", lines.Text())
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
