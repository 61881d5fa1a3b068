package harness_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/shapeline/shapeline/tests/harness"
)

// TestMain lets the test binary stand in for the product: it answers /v1/health at the address after --listen until
// SIGTERM.
func TestMain(m *testing.M) {
	if os.Getenv("HARNESS_STAND_IN") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	http.HandleFunc("/v1/health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"active"}`)
	})
	go func() {
		fmt.Println("args", os.Args[1:], "url", os.Getenv("DATABASE_URL"), "bucket", os.Getenv("SHAPELINE_BUCKET"))
		fmt.Println(http.ListenAndServe(os.Args[3], nil))
		os.Exit(1)
	}()
	<-ctx.Done()
	fmt.Println("bye")
}

func TestProcess(t *testing.T) {
	t.Setenv("SHAPELINE_BIN", os.Args[0])
	t.Setenv("DATABASE_URL", "of somebody else")
	p := harness.Serve(t, harness.Options{
		Bucket: "file:///b", Env: map[string]string{"HARNESS_STAND_IN": "1", "SHAPELINE_BUCKET": "mine"},
	})
	if got, want := p.Log(), "--bucket file:///b --insecure] url  bucket mine\n"; !strings.Contains(got, want) {
		t.Errorf("log:\n%swant %q", got, want)
	}
	if runtime.GOOS == "linux" && p.PeakRSS() < 1<<20 {
		t.Errorf("peak RSS: %d", p.PeakRSS())
	}
	p.Pause()
	p.Resume()
	first := p.PID()
	p.Kill()
	if err := p.Err(); err == nil {
		t.Error("killed, and no error")
	}
	p.Start()
	p.WaitActive()
	if p.PID() == first {
		t.Error("the same process")
	}
	p.Stop()
	if err := p.WaitLog(t.Context(), "bye"); err != nil {
		t.Error(err)
	}
	if err := p.WaitLog(t.Context(), "never said"); err == nil {
		t.Error("found what was never said")
	}
	p.Kill() // harmless by now
}
