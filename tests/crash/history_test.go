package crash_test

import (
	"context"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	historyRows    = 10_000
	historyUpdates = 10_000 // of one row; ten times as many with SHAPELINE_TEST_SCALE
	historyMax     = 3 * time.Minute

	// historyShare is how much more than the rows a new client may have to download once the log is at rest.
	historyShare = 1.2
)

// TestRowUpdatedOften updates one row again and again, among others that come and go. A client that was there all the
// time, strict about duplicates and absences, ends with the table's rows; a new one downloads little more than those.
func TestRowUpdatedOften(t *testing.T) {
	t.Parallel()
	harness.Require(t)
	updates := historyUpdates
	if scale() > 1 {
		updates *= 10
	}
	ctx, cancel := context.WithTimeout(t.Context(), historyMax)
	defer cancel()
	db := harness.Postgres(t, map[string]string{"synchronous_commit": "off"})
	conn := db.Connect(t)
	db.Exec(t, `CREATE TABLE counters (id int PRIMARY KEY, name text, n int, note text);
		CREATE PROCEDURE churn(updates int, rows int) LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO counters VALUES (0, 'the one', 0, repeat('x', 100));
			FOR i IN 1..updates LOOP
				UPDATE counters SET n = i, note = repeat('y', 100 + i % 50) WHERE id = 0;
				IF i % greatest(updates / rows, 1) = 0 THEN
					INSERT INTO counters VALUES (i, 'row ' || i, i, repeat('z', 100));
				END IF;
				COMMIT;
			END LOOP;
			INSERT INTO counters SELECT -i, 'row ' || i, i, repeat('z', 100) FROM generate_series(1, rows) i;
			DELETE FROM counters WHERE id > 0;
			COMMIT;
		END $$`)
	bucket := harness.Bucket(t)
	harness.Ingest(t, harness.Options{DatabaseURL: db.URL(), Bucket: bucket})
	serve := harness.Serve(t, harness.Options{Bucket: bucket, Env: shortPolls})

	params := harness.Params("table", "counters")
	there := harness.NewClient(serve.URL, params)
	if err := there.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return there.Run(ctx) })
	if _, err := conn.Exec(ctx, "CALL churn($1, $2)", updates, historyRows); err != nil {
		t.Fatal(err)
	}
	want := counters(ctx, t, db)
	if err := there.AwaitSum(ctx, want); err != nil {
		t.Fatalf("the client that was there: %.3000s", err.Error())
	}
	there.View(func(s harness.State) {
		if s.Stats.Refetch != 0 || s.Stats.Messages < updates {
			t.Errorf("the client that was there: %+v", s.Stats)
		}
	})

	// A shape of its own that was made just now has the rows and no log.
	fresh := download(ctx, t, serve.URL, "counters", "full", want)
	for {
		got := download(ctx, t, serve.URL, "counters", "default", want)
		if float64(got) <= historyShare*float64(fresh) {
			t.Logf("%d updates: a new client downloads %d bytes, the rows are %d", updates, got, fresh)
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("a new client downloads %d bytes, the rows are %d", got, fresh)
		}
		time.Sleep(healthPoll)
	}
}

// counters is the sum of the table's rows.
func counters(ctx context.Context, t *testing.T, db *harness.Database) uint64 {
	t.Helper()
	rows, err := db.Connect(t).Query(ctx, "SELECT id::text, name, n::text, note FROM counters")
	if err != nil {
		t.Fatal(err)
	}
	var all []harness.Row
	for rows.Next() {
		var id, name, n, note string
		if err := rows.Scan(&id, &name, &n, &note); err != nil {
			t.Fatal(err)
		}
		all = append(all, harness.Row{"id": &id, "name": &name, "n": &n, "note": &note})
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return harness.Sum(all)
}

// download syncs a new client and returns the bytes that this took.
func download(ctx context.Context, t *testing.T, base, table, replica string, want uint64) int64 {
	t.Helper()
	c := harness.NewClient(base, harness.Params("table", table, "replica", replica))
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	var bytes int64
	c.View(func(s harness.State) {
		if bytes = s.Stats.Bytes; s.Sum != want {
			t.Errorf("a new client of %s has other rows than the table", s.Handle)
		}
	})
	return bytes
}
