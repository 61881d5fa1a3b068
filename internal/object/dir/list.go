package dir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/shapeline/shapeline/internal/object"
)

// List implements object.Reader. It reads the names of the folders on the way, and nothing of folders whose keys
// cannot be in the answer; it asks for sizes and times of the answer's files alone.
func (d *Dir) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := listing{dir: d, ctx: ctx, prefix: prefix, after: after, limit: limit}
	if err := l.folder(""); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return l.infos, nil
}

// listing is one List under way; it does not outlive the call whose context it holds.
type listing struct {
	dir           *Dir
	ctx           context.Context
	prefix, after string
	limit         int
	infos         []object.Info
}

func (l *listing) full() bool { return l.limit > 0 && len(l.infos) == l.limit }

// folder adds the keys below the folder whose keys begin with at: empty, or ending in a slash.
func (l *listing) folder(at string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.dir.path(at))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	} else if err != nil {
		return err
	}
	// Among keys a folder sorts by its name and a slash, which comes after - and . but before all else.
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		if l.full() {
			return nil
		}
		key := at + sortName(e)
		if strings.HasPrefix(e.Name(), "~") {
			continue
		}
		if e.IsDir() {
			if l.mayHold(key) {
				err = l.folder(key)
			}
		} else if strings.HasPrefix(key, l.prefix) && key > l.after {
			err = l.file(key, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mayHold reports whether keys that begin with folder may be in the answer.
func (l *listing) mayHold(folder string) bool {
	if !strings.HasPrefix(folder, l.prefix) && !strings.HasPrefix(l.prefix, folder) {
		return false
	}
	return folder > l.after || strings.HasPrefix(l.after, folder)
}

func (l *listing) file(key string, e fs.DirEntry) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	} else if err != nil {
		return err
	}
	l.infos = append(l.infos, object.Info{Key: key, Size: info.Size(), Modified: info.ModTime()})
	return nil
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}
