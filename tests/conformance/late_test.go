package conformance_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	lateMax  = 60 * time.Second
	lateRows = 60 // of about 400 bytes: a few chunks
)

// TestLateServe records what a server answers, takes ingest, Postgres and that server away, and asks another server
// that knows the bucket alone for the same (handle, offset) pairs.
func TestLateServe(t *testing.T) {
	harness.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), lateMax)
	defer cancel()
	db, bucket := harness.Postgres(t, nil), harness.Bucket(t)
	db.Exec(t, `CREATE TABLE a (id int PRIMARY KEY, v text, n int); CREATE TABLE b (id int PRIMARY KEY, v text)`)
	db.Exec(t, fmt.Sprintf(`INSERT INTO a SELECT i, repeat('x', 400), i %% 3 FROM generate_series(1, %d) i;
		INSERT INTO b SELECT i, NULL FROM generate_series(1, 5) i`, lateRows))
	ingest := harness.Ingest(t, harness.Options{DatabaseURL: db.URL(), Bucket: bucket, Env: settings()})
	first := harness.Serve(t, harness.Options{Bucket: bucket, Env: settings()})

	shapes := []url.Values{
		harness.Params("table", "a"),
		harness.Params("table", "a", "where", "n = $1", "params[1]", "1"),
		harness.Params("table", "a", "columns", "id,n", "replica", "full"),
		harness.Params("table", "a", "log", "changes_only"),
		harness.Params("table", "b"),
		harness.Params("table", "b", "where", "v LIKE 'y%'"),
	}
	var urls []string
	clients := make([]*harness.Client, len(shapes))
	syncAll := func() {
		for i, params := range shapes {
			if clients[i] == nil {
				clients[i] = harness.NewClient(first.URL, params)
				clients[i].OnReply = func(r harness.Reply) { urls = append(urls, r.URL) }
			}
			if err := clients[i].Sync(ctx); err != nil {
				t.Fatalf("%v: %v", params, err)
			}
		}
	}
	syncAll()
	db.Exec(t, `UPDATE a SET n = n + 1; DELETE FROM a WHERE id < 9; INSERT INTO a VALUES (1000, 'new', 1)`)
	db.Exec(t, `UPDATE b SET v = 'yes' WHERE id = 3`)
	// The last change of both tables, so that everything is there when it is.
	db.Exec(t, `BEGIN; UPDATE a SET v = 'end' WHERE id = 1000; UPDATE b SET v = 'yet' WHERE id = 3; COMMIT`)
	awaitLast(ctx, t, first.URL)
	syncAll()

	slices.Sort(urls)
	urls = slices.Compact(urls)
	before := make(map[string]harness.Reply, len(urls))
	for _, u := range urls {
		before[u] = get(ctx, t, u)
	}
	ingest.Kill()
	first.Kill()
	if err := db.Stop(); err != nil {
		t.Fatal(err)
	}
	second := harness.Serve(t, harness.Options{Bucket: bucket, Env: settings(), Standby: true})
	// What its health should be with nobody behind it is its own affair; it must answer.
	if err := answers(ctx, second); err != nil {
		t.Fatal(err)
	}
	for _, u := range urls {
		compare(t, before[u], get(ctx, t, second.URL+u[len(first.URL):]))
	}
	t.Logf("%d pairs of handle and offset answered alike", len(urls))
}

// awaitLast waits until both tables' default shapes show the last transaction.
func awaitLast(ctx context.Context, t *testing.T, base string) {
	t.Helper()
	for table, want := range map[string]string{"a": "end", "b": "yet"} {
		c := harness.NewClient(base, harness.Params("table", table))
		for {
			if err := c.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			found := false
			c.View(func(s harness.State) {
				for _, row := range s.Rows {
					found = found || row["v"] != nil && *row["v"] == want
				}
			})
			if found {
				break
			}
		}
	}
}

func get(ctx context.Context, t *testing.T, u string) harness.Reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", u, err)
	}
	return harness.Reply{URL: u, Status: resp.StatusCode, Header: resp.Header, Body: body}
}

// answers waits until the process has opened its port.
func answers(ctx context.Context, p *harness.Process) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if _, _, err := p.Health(ctx); err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.Exited():
			return fmt.Errorf("serve ended: %w", p.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func compare(t *testing.T, want, got harness.Reply) {
	t.Helper()
	if got.Status != want.Status {
		t.Errorf("GET %s: status %d, before %d: %.300s", want.URL, got.Status, want.Status, got.Body)
		return
	}
	for _, name := range []string{
		"electric-handle", "electric-offset", "electric-schema", "electric-up-to-date", "etag", "cache-control",
	} {
		if g, w := got.Header.Values(name), want.Header.Values(name); !slices.Equal(g, w) {
			t.Errorf("GET %s: %s is %q, before %q", want.URL, name, g, w)
		}
	}
	if string(got.Body) != string(want.Body) {
		t.Errorf("GET %s: the body differs:\n%.1000s\nbefore:\n%.1000s", want.URL, got.Body, want.Body)
	}
}
