package crash_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

const (
	largeRowsMin   = 40_000
	largeRowsScale = 1_000_000
	largeRSSMax    = 512 << 20 // the rows are about 400 MB as JSON: an ingest that held them would not fit
	largeMax       = 5 * time.Minute
)

// The reference row of the performance goals: 7 columns, about 160 bytes of COPY text.
const (
	referenceTable = `CREATE TABLE reference (id bigint PRIMARY KEY, tenant_id int, status text, title text, price numeric,
		tags text[], updated_at timestamptz)`
	referenceRows = `INSERT INTO reference SELECT i, i %% 10000, (ARRAY['open','done','in progress'])[1 + i %% 3],
		'The title of row ' || i || ', ' || md5(i::text) || left(md5((i + 1)::text), 22), (i %% 100000) / 100.0,
		ARRAY['tag' || i %% 10, 'label ' || i %% 7], '2024-01-01Z'::timestamptz + i * interval '1.5 s'
		FROM generate_series(1, %d) i`
	referenceColumns = "id, tenant_id, status, title, price, tags, updated_at"
)

// answer is one answer of a walk along a shape, without its body.
type answer struct {
	url, offset, handle string
	sum                 [sha256.Size]byte
	bytes               int
}

// rowSet is a set of rows whatever their order: how many, and the sum of their hashes.
type rowSet struct {
	rows int
	sum  uint64
}

var rowSeed = maphash.MakeSeed()

func (s *rowSet) add(values []string) {
	s.rows++
	s.sum += maphash.String(rowSeed, strings.Join(values, "\x00"))
}

// TestLargeTable syncs a table larger than ingest may hold: the rows arrive complete and in pages. Then Postgres and
// ingest are gone, and a serve that has known neither answers the same bytes for the same requests.
func TestLargeTable(t *testing.T) {
	t.Parallel()
	harness.Require(t)
	rows := largeRowsMin
	if scale() > 1 {
		rows = largeRowsScale
	}
	ctx, cancel := context.WithTimeout(t.Context(), largeMax)
	defer cancel()
	db := harness.Postgres(t, map[string]string{"max_wal_size": "4GB"})
	conn := db.Connect(t)
	for _, sql := range []string{referenceTable, fmt.Sprintf(referenceRows, rows)} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	bucket := harness.Bucket(t)
	ingest := harness.Ingest(t, harness.Options{DatabaseURL: db.URL(), Bucket: bucket})
	idle := ingest.PeakRSS()
	first := harness.Serve(t, harness.Options{Bucket: bucket})

	start := time.Now()
	answers, got := walk(ctx, t, first.URL)
	took := time.Since(start)
	peak := ingest.PeakRSS()
	if want := tableRows(ctx, t, conn); got != want {
		t.Errorf("got %d rows, digest %x; the table has %d, digest %x", got.rows, got.sum, want.rows, want.sum)
	}
	t.Logf("%d rows in %d answers within %s; ingest's peak RSS %d MiB, idle %d MiB",
		got.rows, len(answers), took.Round(time.Millisecond), peak>>20, idle>>20)
	if peak > largeRSSMax {
		t.Errorf("ingest's peak RSS is %d MiB", peak>>20)
	}
	if len(answers) < 3 {
		t.Errorf("%d answers: no pages", len(answers))
	}

	ingest.Kill()
	db.Kill()
	for name, p := range map[string]*harness.Process{
		"the first serve": first, "a serve started later": harness.Serve(t, harness.Options{Bucket: bucket, Standby: true}),
	} {
		awaitServing(ctx, t, p)
		again, rows := walk(ctx, t, p.URL)
		if rows != got {
			t.Errorf("%s, without Postgres: %d rows, digest %x", name, rows.rows, rows.sum)
		}
		// The last answer is the open end of the log, which a commit elsewhere in the database may have moved.
		for i := range min(len(again), len(answers)) - 1 {
			if again[i] != answers[i] {
				t.Errorf("%s, answer %d: %+v, before %+v", name, i, again[i], answers[i])
			}
		}
		if len(again) != len(answers) {
			t.Errorf("%s: %d answers, before %d", name, len(again), len(answers))
		}
	}
}

// awaitServing waits until p answers its health at all: without an ingest it need not be active.
func awaitServing(ctx context.Context, t *testing.T, p *harness.Process) {
	t.Helper()
	for {
		_, _, err := p.Health(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil || ended(p) {
			t.Fatalf("%s does not answer: %v", p.Name, err)
		}
		time.Sleep(healthPoll)
	}
}

// walk requests the reference table's shape from its beginning to the first up-to-date.
func walk(ctx context.Context, t *testing.T, base string) ([]answer, rowSet) {
	t.Helper()
	var all []answer
	var set rowSet
	q := url.Values{"table": {"reference"}, "offset": {"-1"}}
	for {
		path := "/v1/shape?" + q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: status %d, %v, %.500s", path, resp.StatusCode, err, body)
		}
		a := answer{
			url: path, offset: resp.Header.Get("electric-offset"), handle: resp.Header.Get("electric-handle"),
			sum: sha256.Sum256(body), bytes: len(body),
		}
		all = append(all, a)
		if err := set.addBody(body); err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		if resp.Header.Values("electric-up-to-date") != nil {
			return all, set
		}
		q.Set("offset", a.offset)
		q.Set("handle", a.handle)
	}
}

// addBody adds the rows of a body, which must all be inserts.
func (s *rowSet) addBody(body []byte) error {
	var messages []struct {
		Value   map[string]string `json:"value"`
		Headers struct {
			Operation string `json:"operation"`
			Control   string `json:"control"`
		} `json:"headers"`
	}
	if err := json.Unmarshal(body, &messages); err != nil {
		return err
	}
	for _, m := range messages {
		if m.Headers.Control != "" {
			continue
		}
		if m.Headers.Operation != "insert" {
			return fmt.Errorf("%s where nothing but inserts was made", m.Headers.Operation)
		}
		var values []string
		for _, c := range strings.Split(referenceColumns, ", ") {
			values = append(values, m.Value[c])
		}
		s.add(values)
	}
	return nil
}

// tableRows asks Postgres for the same rows.
func tableRows(ctx context.Context, t *testing.T, conn *pgx.Conn) rowSet {
	t.Helper()
	var set rowSet
	results := conn.PgConn().Exec(ctx, oracle.ClientSettings+"; SELECT "+referenceColumns+" FROM reference")
	for results.NextResult() {
		for rows := results.ResultReader(); rows.NextRow(); {
			var values []string
			for _, v := range rows.Values() {
				values = append(values, string(v))
			}
			set.add(values)
		}
	}
	if err := results.Close(); err != nil {
		t.Fatal(err)
	}
	return set
}
