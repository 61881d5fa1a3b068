package start

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	idleShapes      = 300 // 10,000 with SHAPELINE_TEST_SCALE
	idleShapesScale = 10_000
	idleFor         = 10 * time.Second // 60 s with SHAPELINE_TEST_SCALE
	idleForScale    = 60 * time.Second
	idleMakers      = 32              // requests for shapes at a time
	idleSettle      = 3 * time.Minute // at most, until the work that the shapes made is done
)

// TestIdle: once nothing happens, ingest asks the bucket for nothing, and with the feed up neither does serve, although
// clients wait.
func TestIdle(t *testing.T) {
	harness.Require(t)
	shapes, quiet := idleShapes, idleFor
	if os.Getenv("SHAPELINE_TEST_SCALE") > "1" {
		shapes, quiet = idleShapesScale, idleForScale
	}
	db, bucket := harness.Postgres(t, nil), harness.Bucket(t)
	db.Exec(t, "CREATE TABLE items (id int PRIMARY KEY, tenant int); INSERT INTO items SELECT i, i FROM generate_series(1, 100) i")
	metrics := func() string { return "127.0.0.1:" + strconv.Itoa(harness.FreePort(t)) }
	ingestMetrics, serveMetrics := metrics(), metrics()
	ingest := harness.Ingest(t, harness.Options{DatabaseURL: db.URL(), Bucket: bucket, Args: []string{"--metrics-listen", ingestMetrics}})
	serve := harness.Serve(t, harness.Options{Bucket: bucket, IngestURL: ingest.URL, Args: []string{"--metrics-listen", serveMetrics}})

	began := time.Now()
	work, failed := make(chan int), make(chan error, idleMakers)
	for range idleMakers {
		go func() { // ends with work
			for i := range work {
				c := harness.NewClient(serve.URL, harness.Params("table", "items", "where", fmt.Sprintf("tenant = %d", i)))
				if err := c.Sync(t.Context()); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for i := range shapes {
		work <- i
	}
	close(work)
	for range idleMakers {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d shapes made within %s", shapes, time.Since(began).Round(time.Millisecond))
	waiting := harness.NewClient(serve.URL, harness.Params("table", "items", "where", "tenant = 1"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = waiting.Run(ctx) }() // ends with ctx
	defer func() { cancel(); <-ended }()

	deadline := time.Now().Add(idleSettle)
	for {
		before := [2]float64{requests(t, ingestMetrics), requests(t, serveMetrics)}
		time.Sleep(quiet) // this is what the test is about: nothing happens meanwhile
		after := [2]float64{requests(t, ingestMetrics), requests(t, serveMetrics)}
		if before == after {
			t.Logf("idle for %s with %d shapes: no request from ingest, none from serve", quiet, shapes)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("within %s ingest made %.0f requests to the bucket, serve %.0f", quiet, after[0]-before[0], after[1]-before[1])
		}
	}
}

// requests is how many requests to the bucket the process has made, of any kind.
func requests(t *testing.T, metrics string) (n float64) {
	t.Helper()
	res, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "shapeline_store_requests_total{") {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
	}
	return n
}
