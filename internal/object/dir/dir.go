// Package dir keeps objects as plain files below a directory: for one machine, for trying things out, and for a
// network file system with working locks and links. It owns the layout of that directory: a key is the file's path,
// and what begins with a tilde is its own (no key does). It knows nothing of what the objects mean.
//
// The one idea: the file system already has both conditional writes. Create-if-absent is link(2) of a complete,
// fsynced temporary file, which is atomic between processes. A swap is rename(2) under a file lock, by which every
// version of a file gets a later modification time than the one before: time and size are its etag. A Put returns
// once file and folder are fsynced. A Delete may be undone by a power failure.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shapeline/shapeline/internal/object"
)

const (
	tempFolder = "~tmp"  // complete and half-written files on their way to their names
	lockFile   = "~lock" // held while an object is replaced or removed

	tempAgeMax = time.Hour // older files in tempFolder were left by a crash

	// etagStep is the least distance between the modification times of two versions: coarser than what a file
	// system may cut off (100 ns on Windows), finer than a Put with fsync takes.
	etagStep = time.Microsecond

	flushInterval = 5 * time.Millisecond
	probeInterval = 2 * time.Millisecond
	listInterval  = 20 * time.Millisecond

	// attemptsMax bounds how often a Put makes its folder again when another process removes it, empty, meanwhile.
	attemptsMax = 8

	// durableMax bounds the folders remembered as durable; the set is begun anew when it is full.
	durableMax = 4096
)

// ErrLost is in the error of every call after a folder's fsync failed: what this process has stored may vanish, so
// it must not go on. Opening the directory again, in a new process, is the way back.
var ErrLost = errors.New("the directory lost a write; check the disk and start again")

// Dir is an object.Store in a directory.
type Dir struct {
	root string

	mu      sync.Mutex
	durable map[string]bool // folders whose own names are on disk
	lost    error           // set once a folder's fsync failed
}

// Open returns the store in the directory root, which it makes if it is not there, and sweeps temporary files that
// crashed processes left. It needs to write there.
func Open(root string) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open directory bucket: %w", err)
	}
	d := &Dir{root: root, durable: make(map[string]bool)}
	err = d.prepare()
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("directory bucket %s is not writable: %w; "+
			"let this user write there, or name another directory with --bucket", root, err)
	} else if err != nil {
		return nil, fmt.Errorf("open directory bucket: %w", err)
	}
	return d, nil
}

// prepare makes the folders, proves that files can be written with times fine enough for etags, and sweeps.
func (d *Dir) prepare() error {
	if err := os.MkdirAll(d.path(tempFolder), 0o777); err != nil {
		return err
	}
	if err := d.sweep(); err != nil {
		return err
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	unlock()

	// A young time: another process that opens the folder now sweeps old files.
	now := time.Now().Truncate(time.Second).Add(123_456 * time.Microsecond)
	temp, err := d.writeTemp(nil, now)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if info, err := os.Stat(temp); err != nil {
		return err
	} else if !info.ModTime().Equal(now) {
		return fmt.Errorf("the file system of %s does not keep times to the microsecond; use another one", d.root)
	}
	return nil
}

// sweep removes the files in tempFolder that are too old to be under way.
func (d *Dir) sweep() error {
	entries, err := os.ReadDir(d.path(tempFolder))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < tempAgeMax {
			continue // gone meanwhile, or young
		}
		if err := os.Remove(d.path(tempFolder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Caps implements object.Store.
func (d *Dir) Caps() object.Caps {
	return object.Caps{Name: "directory", FlushInterval: flushInterval, ProbeInterval: probeInterval, ListInterval: listInterval}
}

// Get implements object.Reader.
func (d *Dir) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	if err := d.ready(ctx, key); err != nil {
		return nil, err
	}
	o, err := read(d.path(key), r)
	if errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		err = object.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return o, nil
}

func read(path string, r object.Range) (*object.Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, object.ErrNotFound
	}
	from, to, err := r.Cut(info.Size())
	if err != nil {
		return nil, err
	}
	body := make([]byte, to-from)
	if _, err := io.ReadFull(io.NewSectionReader(f, from, to-from), body); err != nil {
		return nil, err
	}
	return &object.Object{Body: body, ETag: etag(info), Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete implements object.Store. Folders that become empty go as well.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := d.ready(ctx, key); err != nil {
		return err
	}
	// Without the lock a swap that has compared etags could bring the object back.
	unlock, err := d.lock()
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	defer unlock()
	path := d.path(key)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil // os.Remove would take an empty folder
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) || notFolder(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	for folder := filepath.Dir(path); folder != d.root; folder = filepath.Dir(folder) {
		d.forget(folder)
		if os.Remove(folder) != nil {
			break // not empty
		}
	}
	return nil
}

// ready returns the error of a call that must not begin.
func (d *Dir) ready(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := object.ValidKey(key); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

func (d *Dir) path(elements ...string) string {
	return filepath.Join(d.root, filepath.FromSlash(filepath.Join(elements...)))
}

// etag tells the versions of one file apart. Replacing one makes its modification time grow.
func etag(info fs.FileInfo) string {
	return strconv.FormatInt(info.ModTime().UnixNano(), 16) + "-" + strconv.FormatInt(info.Size(), 16)
}
