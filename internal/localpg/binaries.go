//go:build unix

package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// versionMin is the oldest major version that replication works with.
const versionMin = 14

// ErrNoBinaries means that no server that would do is installed.
var ErrNoBinaries = errors.New("no Postgres server found (14 or newer): install one (Debian: apt-get install " +
	"postgresql; macOS: brew install postgresql) or set DATABASE_URL")

// places are where packages put a server that is not in PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/opt/local/lib/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/Library/PostgreSQL/*/bin",
}

// findBinaries returns the folder of initdb and postgres: dir if it is given, else the first that will do of PATH,
// what pg_config says, and the usual places, newest first.
func findBinaries(ctx context.Context, dir string) (string, error) {
	if dir != "" {
		if v := serverVersion(ctx, dir); v < versionMin {
			return "", fmt.Errorf("no initdb and postgres of version %d or newer in %s", versionMin, dir)
		}
		return dir, nil
	}
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, resolved(path))
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, place := range places {
		found, err := filepath.Glob(place)
		if err != nil {
			panic(err) // a malformed pattern of ours
		}
		slices.SortFunc(found, func(a, b string) int { return pathVersion(b) - pathVersion(a) })
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if serverVersion(ctx, dir) >= versionMin {
			return dir, nil
		}
	}
	return "", ErrNoBinaries
}

// resolved is the real folder of the program at path: initdb may be there without being in PATH.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Dir(path)
}

var number = regexp.MustCompile(`\d+`)

// pathVersion is the last number in a path, 0 for none.
func pathVersion(path string) int {
	all := number.FindAllString(path, -1)
	if all == nil {
		return 0
	}
	n, err := strconv.Atoi(all[len(all)-1])
	if err != nil {
		return 0
	}
	return n
}

// serverVersion is the major version of the server in dir, 0 if there is none or it lacks initdb.
func serverVersion(ctx context.Context, dir string) int {
	if fi, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || fi.IsDir() {
		return 0
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(number.FindString(string(out))) // postgres (PostgreSQL) 15.8
	if err != nil {
		return 0
	}
	return n
}
