// Package conformance_test holds the product against the protocol from outside, with the real npm client: the tests
// proper are the .mjs files beside it, and what is here runs them against the built binary, once as one process and
// once as an ingest and a serve that share nothing but a bucket's folder. It also checks that a server started later,
// with no Postgres and no ingest alive, answers the same bytes.
//
// The .mjs files run against any server that speaks the protocol: set SHAPELINE_URL and DATABASE_URL and call
// `npm ci && npm test` in this folder.
package conformance_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shapeline/shapeline/tests/harness"
)

const (
	npmMax    = 3 * time.Minute
	suiteMax  = 6 * time.Minute
	altSecret = "an-Open-Secret"
)

func TestMain(m *testing.M) { harness.Main(m) }

// settings are those of the suites of the reference, so that chunks are small and caches forget soon.
func settings(more ...string) map[string]string {
	env := map[string]string{
		"ELECTRIC_ENABLE_INTEGRATION_TESTING":  "true",
		"ELECTRIC_CACHE_MAX_AGE":               "1",
		"ELECTRIC_CACHE_STALE_AGE":             "3",
		"ELECTRIC_SHAPE_CHUNK_BYTES_THRESHOLD": "10000",
	}
	for i := 0; i+1 < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

func TestNpmClient(t *testing.T) {
	harness.Require(t)
	dir := modules(t)
	t.Run("dev", func(t *testing.T) {
		db := harness.Postgres(t, nil)
		dev := harness.Dev(t, harness.Options{
			DatabaseURL: db.URL(), Bucket: harness.Bucket(t), Env: settings(),
		})
		runSuite(t, dir, db, dev, nil)
	})
	t.Run("ingest and serve", func(t *testing.T) {
		db, bucket := harness.Postgres(t, nil), harness.Bucket(t)
		// One serve process has the feed, the other the bucket alone, for which ingest has to look all the time.
		ingest := harness.Ingest(t, harness.Options{
			DatabaseURL: db.URL(), Bucket: bucket, Secret: altSecret, Env: settings("SHAPELINE_REQUESTS_INTERVAL", "50ms"),
		})
		serve := harness.Serve(t, harness.Options{Bucket: bucket, Env: settings()})
		alt := harness.Serve(t, harness.Options{
			Bucket: bucket, Secret: altSecret, IngestURL: ingest.URL, Env: settings("ELECTRIC_LONG_POLL_TIMEOUT", "1000"),
		})
		runSuite(t, dir, db, serve, alt)
	})
}

// runSuite runs the .mjs files of dir against server, and against alt what needs a secret. SHAPELINE_TEST_ONLY is a
// pattern of test names.
func runSuite(t *testing.T, dir string, db *harness.Database, server, alt *harness.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suiteMax)
	defer cancel()
	// The time is that of a whole file: what hangs is a failure with a name, not a killed run.
	args := []string{"--test", "--test-concurrency=1", "--test-timeout=180000", "--test-force-exit"}
	if only := os.Getenv("SHAPELINE_TEST_ONLY"); only != "" {
		args = append(args, "--test-name-pattern="+only)
	}
	cmd := exec.CommandContext(ctx, "node", append(args, "--test-reporter=spec")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SHAPELINE_URL="+server.URL, "DATABASE_URL="+db.URL())
	for k, v := range settings() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if alt != nil {
		cmd.Env = append(cmd.Env, "SHAPELINE_ALT_URL="+alt.URL, "SHAPELINE_ALT_SECRET="+altSecret)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the suite: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// modules is a copy of the .mjs files with the packages that package-lock.json pins.
func modules(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), npmMax)
	defer cancel()
	dir, src := t.TempDir(), filepath.Join(harness.Root(t), "tests", "conformance")
	for _, pattern := range []string{"*.mjs", "package*.json", ".npmrc"} {
		files, err := filepath.Glob(filepath.Join(src, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci (is Node 20 or newer installed?): %v\n%s", err, out)
	}
	return dir
}
