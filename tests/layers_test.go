// Package tests holds what is true of the whole module. This file is the import table and the size ceilings: a
// change of either is a change of the design, made here in the same commit, with its reason.
package tests

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shapeline/shapeline/"

// allowed says which of our packages each package may import, and which outside modules it owns: nobody else may
// import those. Tests may import more (see testsMayImport).
var allowed = map[string]struct{ ours, outside []string }{
	"internal/pg":      {},
	"internal/shape":   {ours: []string{"internal/pg"}},
	"internal/object":  {},
	"internal/localpg": {},

	"internal/object/dir":        {ours: []string{"internal/object"}, outside: []string{"golang.org/x/sys"}},
	"internal/object/objecttest": {ours: []string{"internal/object"}},
	"internal/object/location":   {ours: []string{"internal/object"}},
	"internal/object/meter":      {ours: []string{"internal/object"}},
	"internal/object/minio": {ours: []string{"internal/object", "internal/object/location"},
		outside: []string{"github.com/minio/minio-go/v7"}},
	"internal/object/s3": {ours: []string{"internal/object", "internal/object/location"},
		outside: []string{"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"}},
	"internal/segment":  {ours: []string{"internal/pg", "internal/shape"}},
	"internal/shapelog": {ours: []string{"internal/object", "internal/segment", "internal/pg"}},
	"internal/catalog":  {ours: []string{"internal/object", "internal/segment", "internal/shape", "internal/pg"}},

	"internal/entries": {ours: []string{"internal/catalog", "internal/object", "internal/segment", "internal/shape", "internal/shapelog"}},
	"internal/audit":   {ours: []string{"internal/catalog", "internal/object", "internal/segment", "internal/shape", "internal/shapelog"}},
	"internal/garbage": {ours: []string{"internal/catalog", "internal/object", "internal/segment", "internal/shape", "internal/shapelog"}},

	// The feed is how ingest and serve speak when they can: bytes of frames, and requests for shapes.
	"internal/feed": {ours: []string{"internal/segment", "internal/shape"}},

	"ingest/pgoutput":      {ours: []string{"internal/pg"}},
	"ingest/where/datum":   {ours: []string{"internal/pg"}},
	"ingest/where/grammar": {outside: []string{"google.golang.org/protobuf", "github.com/wasilibs/go-pgquery", "github.com/pganalyze/pg_query_go/v6"}},
	"ingest/where": {ours: []string{"internal/pg", "ingest/where/datum", "ingest/where/grammar"},
		outside: []string{"github.com/pganalyze/pg_query_go/v6"}},
	"ingest/match":    {ours: []string{"internal/pg", "ingest/where"}},
	"ingest/postgres": {ours: []string{"internal/pg", "internal/shape"}, outside: []string{"github.com/jackc/pgx/v5", "github.com/jackc/pglogrepl"}},

	"ingest/base": {ours: []string{"internal/catalog", "internal/object", "internal/pg", "internal/segment", "internal/shape"},
		outside: []string{"golang.org/x/sync"}},

	"ingest/rebase": {ours: []string{"ingest/base", "internal/catalog", "internal/entries", "internal/object", "internal/pg", "internal/segment", "internal/shape"}},
	"ingest/compact": {ours: []string{"ingest/rebase", "internal/catalog", "internal/garbage", "internal/object", "internal/segment", "internal/shape", "internal/shapelog"},
		outside: []string{"golang.org/x/sync"}},
	"ingest/inbox": {ours: []string{"internal/catalog", "internal/object", "internal/shape"}, outside: []string{"golang.org/x/sync"}},
	"ingest": {ours: []string{"ingest/base", "ingest/compact", "ingest/inbox", "ingest/match", "ingest/pgoutput", "ingest/postgres", "ingest/where", "internal/catalog",
		"internal/feed", "internal/object", "internal/pg", "internal/segment", "internal/shape", "internal/shapelog"},
		outside: []string{"golang.org/x/sync"}},
	"serve/params": {ours: []string{"internal/shape"}},
	"serve/lru":    {},
	"serve/pulse":  {},
	"serve/body": {ours: []string{"internal/catalog", "internal/object", "internal/segment", "internal/shape", "internal/shapelog",
		"serve/lru"}, outside: []string{"golang.org/x/sync"}},
	"serve/tail": {ours: []string{"internal/catalog", "internal/feed", "internal/object", "internal/segment", "internal/shapelog"}},
	"serve": {ours: []string{"internal/catalog", "internal/feed", "internal/object", "internal/pg", "internal/segment", "internal/shape",
		"serve/body", "serve/lru", "serve/params", "serve/pulse", "serve/tail"}, outside: []string{"golang.org/x/sync"}},

	"cmd/shapeline": {ours: []string{"ingest", "ingest/postgres", "ingest/where", "internal/audit", "internal/feed", "internal/garbage", "internal/localpg", "internal/object", "internal/object/dir",
		"internal/object/location", "internal/object/meter", "internal/object/minio", "internal/object/s3", "internal/shape", "internal/shapelog", "serve"}, outside: []string{"github.com/alecthomas/kong", "github.com/schollz/progressbar/v3",
		"golang.org/x/sync", "golang.org/x/term", "github.com/jackc/pgx/v5", "github.com/prometheus/client_golang"}},

	// What only tests use may use everything below the planes, and Postgres.
	"tests/harness": {ours: []string{"internal/localpg", "internal/pg", "internal/shape"},
		outside: []string{"github.com/jackc/pgx/v5", "github.com/minio/minio-go/v7"}},
	"tests/oracle": {ours: []string{"tests/harness", "internal/localpg"}, outside: []string{"github.com/jackc/pgx/v5"}},
	"tests/crash":  {ours: []string{"tests/harness", "internal/localpg"}, outside: []string{"github.com/jackc/pgx/v5"}},
	"tests/chaos":  {}, // its tests use the planes' insides: the log, the catalogue, the compactor
	"tests/bench":  {ours: []string{"tests/harness", "internal/localpg"}, outside: []string{"github.com/minio/minio-go/v7", "github.com/jackc/pgx/v5", "golang.org/x/sync"}},
}

const (
	fileLinesMax    = 500
	packageLinesMax = 2000
)

func TestLayers(t *testing.T) {
	sizes := make(map[string]int)
	walk(t, func(path string) {
		pkg := filepath.ToSlash(filepath.Dir(path))
		lines := countLines(t, path)
		if lines > fileLinesMax {
			t.Errorf("%s has %d lines, more than %d: split it by topic", path, lines, fileLinesMax)
		}
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		sizes[pkg] += lines
		rule, ok := allowed[pkg]
		if !ok {
			t.Errorf("package %s is not in the import table", pkg)
			return
		}
		for _, imp := range imports(t, path) {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				if !slices.Contains(rule.ours, ours) {
					t.Errorf("%s imports %s, which the table does not allow", path, ours)
				}
			} else if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
				if !slices.ContainsFunc(rule.outside, func(m string) bool { return imp == m || strings.HasPrefix(imp, m+"/") }) {
					t.Errorf("%s imports %s, which is not its to know", path, imp)
				}
			}
		}
	})
	for pkg, n := range sizes {
		if n > packageLinesMax {
			t.Errorf("package %s has %d lines, more than %d: split it", pkg, n, packageLinesMax)
		}
	}
	for pkg := range allowed {
		if sizes[pkg] == 0 {
			t.Errorf("the import table has %s, which is not there", pkg)
		}
	}
}

// TestPlanesStayApart holds the rule that the table could be edited around: planes never import each other.
func TestPlanesStayApart(t *testing.T) {
	planes := []string{"ingest", "serve", "control"}
	for pkg, rule := range allowed {
		plane, _, _ := strings.Cut(pkg, "/")
		if !slices.Contains(planes, plane) {
			continue
		}
		for _, imp := range rule.ours {
			other, _, _ := strings.Cut(imp, "/")
			if slices.Contains(planes, other) && other != plane {
				t.Errorf("the import table lets %s import %s: planes share the bucket and the vocabularies only", pkg, imp)
			}
		}
	}
}

func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	if err := os.Chdir(".."); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chdir("tests"); err != nil {
			t.Fatal(err)
		}
	})
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".go"):
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
	}
	return n
}

func imports(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, i := range f.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}
