package start

import (
	"strings"
	"testing"

	"github.com/shapeline/shapeline/tests/harness"
)

// TestRefusedAtStart: what only a person can put right ends the process with one sentence that says how.
func TestRefusedAtStart(t *testing.T) {
	harness.Require(t)
	db := harness.Postgres(t, nil)
	db.Exec(t, "CREATE ROLE weak LOGIN PASSWORD 'password'")
	replica := harness.Postgres(t, map[string]string{"wal_level": "replica"})
	bucket := harness.Bucket(t)
	ingest := func(url string, more ...string) []string {
		return append([]string{"ingest", "--database-url", url, "--bucket", bucket, "--listen", "127.0.0.1:0"}, more...)
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"wrong password":  {ingest(strings.Replace(db.URL(), ":password@", ":wrong@", 1)), []string{"password"}},
		"no privilege":    {ingest(strings.Replace(db.URL(), "postgres:password@", "weak:password@", 1)), []string{"REPLICATION", "ALTER ROLE"}},
		"wal_level":       {ingest(replica.URL()), []string{"wal_level", "logical"}},
		"no database":     {ingest(strings.Replace(db.URL(), "/postgres?", "/nowhere?", 1)), []string{"nowhere"}},
		"bad URL":         {ingest("postgresql://%zz"), []string{"database URL"}},
		"stream id":       {ingest(db.URL(), "--stream-id", "No!"), []string{"stream id"}},
		"bucket":          {[]string{"serve", "--insecure", "--bucket", "file:///proc/nothing", "--listen", "127.0.0.1:0"}, []string{"/proc/nothing"}},
		"bucket kind":     {[]string{"serve", "--insecure", "--bucket", "ftp://x", "--listen", "127.0.0.1:0"}, []string{"file://DIR"}},
		"no secret":       {[]string{"serve", "--bucket", bucket}, []string{"SHAPELINE_SECRET", "--insecure"}},
		"both":            {[]string{"serve", "--bucket", bucket, "--insecure", "--secret", "x"}, []string{"choose one"}},
		"no database-url": {[]string{"ingest"}, []string{"--database-url"}},
		"unknown flag":    {[]string{"serve", "--nope"}, []string{"--nope"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := refused(t, c.args...)
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("it does not speak of %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "goroutine ") {
				t.Errorf("it panicked:\n%s", out)
			}
			if strings.Contains(out, "wrong@") || strings.Contains(out, "password@") {
				t.Errorf("it prints a password:\n%s", out)
			}
		})
	}
}
