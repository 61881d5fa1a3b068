package crash_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

// TestLargeTransaction commits more rows at once than ingest may hold: whoever asks meanwhile gets none of them or all,
// and ingest's memory stays flat.
func TestLargeTransaction(t *testing.T) {
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
	if _, err := conn.Exec(ctx, referenceTable); err != nil {
		t.Fatal(err)
	}
	bucket := harness.Bucket(t)
	ingest := harness.Ingest(t, harness.Options{DatabaseURL: db.URL(), Bucket: bucket})
	serve := harness.Serve(t, harness.Options{Bucket: bucket})
	if _, got := walk(ctx, t, serve.URL); got.rows != 0 {
		t.Fatalf("%d rows of an empty table", got.rows)
	}
	start := time.Now()
	if _, err := conn.Exec(ctx, fmt.Sprintf(referenceRows, rows)); err != nil {
		t.Fatal(err)
	}
	committed := time.Since(start)
	looks := 0
	for {
		_, got := walk(ctx, t, serve.URL)
		if looks++; got.rows == rows {
			if want := tableRows(ctx, t, conn); got != want {
				t.Errorf("got %d rows, digest %x; the table has %d, digest %x", got.rows, got.sum, want.rows, want.sum)
			}
			break
		}
		if got.rows != 0 {
			t.Fatalf("a part of the transaction was shown: %d rows of %d", got.rows, rows)
		}
		time.Sleep(healthPoll)
	}
	peak := ingest.PeakRSS()
	t.Logf("%d rows committed within %s, all there after %s, %d looks; ingest's peak RSS %d MiB",
		rows, committed.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), looks, peak>>20)
	if peak > largeRSSMax {
		t.Errorf("ingest's peak RSS is %d MiB", peak>>20)
	}
}
