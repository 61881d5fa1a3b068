package start

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/tests/harness"
)

// TestApartPage runs the commands of the page in order, against a database of its own.
func TestApartPage(t *testing.T) {
	harness.Require(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(harness.Binary(t), filepath.Join(dir, "bin/shapeline")); err != nil {
		t.Fatal(err)
	}
	db := harness.Postgres(t, nil)
	db.Exec(t, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1), (2)")
	port := func() string { return "127.0.0.1:" + strconv.Itoa(harness.FreePort(t)) }
	swap := strings.NewReplacer("postgresql://postgres@localhost:5432/postgres", "'"+db.URL()+"'",
		"localhost:3000", port(), "localhost:3001", port(), "/tmp/shapeline-bucket", filepath.Join(dir, "bucket"),
		"$SHAPELINE_SECRET", "change-me")
	export, asked := "", false
	for _, command := range pageCommands(t, "docs/ingest-and-serve.md") {
		line := swap.Replace(command)
		switch words := strings.Fields(line); words[0] {
		case "export":
			export = line + "; "
		case "bin/shapeline":
			background(t, dir, export+line)
		case "curl":
			asked = true
			if got := keys(t, strings.Trim(words[2], `"`)); len(got) != 2 {
				t.Errorf("%s: rows %q", command, got)
			}
		default:
			t.Errorf("the page has a command that the test does not know: %s", command)
		}
	}
	if !asked {
		t.Error("the page asks for nothing")
	}
}
