package start

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

// TestMetricsPage runs the commands of the page: the second one's answer has what the page promises.
func TestMetricsPage(t *testing.T) {
	commands := pageCommands(t, "docs/metrics.md")
	want := []string{"bin/shapeline dev --metrics-listen localhost:9464", "curl -s http://localhost:9464/metrics"}
	if !slices.Equal(commands, want) {
		t.Fatalf("the page has %q, the test knows %q", commands, want)
	}
	harness.Require(t)
	metrics := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	p := start(t, commands[0], map[string]string{"localhost:9464": metrics}, "--listen", "127.0.0.1:"+strconv.Itoa(harness.FreePort(t)),
		"--bucket", harness.Bucket(t))
	p.await(t, "Shapeline is ready")
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := http.Get("http://" + metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if strings.Contains(text, "shapeline_ready 1") && strings.Contains(text, `shapeline_store_requests_total{kind="control",op="put"}`) &&
			strings.Contains(text, `shapeline_store_dollars_total{kind="log",op="put"} 0`) && strings.Contains(text, "go_goroutines") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the metrics are\n%s", text)
		}
	}
}
