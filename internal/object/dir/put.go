package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shapeline/shapeline/internal/object"
)

// Put implements object.Store.
func (d *Dir) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	if err := d.ready(ctx, key); err != nil {
		return "", err
	}
	tag, err := d.put(d.path(key), body, c)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	return tag, nil
}

func (d *Dir) put(path string, body []byte, c object.Condition) (string, error) {
	if c.Absent() {
		if _, err := os.Lstat(path); err == nil {
			return "", d.exists(path)
		}
	}
	temp, err := d.writeTemp(body, time.Now().Truncate(etagStep))
	if err != nil {
		return "", full(err)
	}
	defer os.Remove(temp) // a second name after create, gone after replace

	for attempt := 1; ; attempt++ {
		tag, err := d.place(temp, path, c)
		if err == nil {
			return tag, nil
		}
		// A Delete in another process may have removed the folder, empty, after it was found or made.
		if !errors.Is(err, fs.ErrNotExist) || attempt == attemptsMax {
			return "", full(err)
		}
		d.forget(filepath.Dir(path))
	}
}

// place gives the file temp the name path, if c holds, and makes that durable.
func (d *Dir) place(temp, path string, c object.Condition) (string, error) {
	if err := d.makeFolder(filepath.Dir(path)); err != nil {
		return "", err
	}
	// Opened before the name is given, so that afterwards nothing can fail but the disk.
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer folder.Close()
	var tag string
	if c.Absent() {
		tag, err = d.create(temp, path)
	} else {
		tag, err = d.replace(temp, path, c.ETag())
	}
	if err != nil {
		return "", err
	}
	return tag, d.sync(folder)
}

// create gives the file temp the name path if nothing has it.
func (d *Dir) create(temp, path string) (string, error) {
	info, err := os.Lstat(temp)
	if err != nil {
		return "", err
	}
	if err := os.Link(temp, path); errors.Is(err, fs.ErrExist) {
		return "", d.exists(path)
	} else if err != nil {
		return "", err
	}
	return etag(info), nil
}

// exists returns the error of a create whose name is taken. Whoever gets it reads the object back and may believe
// that it is durable, so its folder is synced first: its maker may have died before it came to that.
func (d *Dir) exists(path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return errors.New("other keys lie below it")
	}
	if err := d.syncFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return object.ErrExists
}

// replace gives the file temp the name path: always if match is empty, else only in place of the version with that
// etag.
func (d *Dir) replace(temp, path, match string) (string, error) {
	unlock, err := d.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	info, err := os.Lstat(temp)
	if err != nil {
		return "", err
	}
	old, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	exists := err == nil
	if exists && old.IsDir() {
		return "", errors.New("other keys lie below it")
	}
	if match != "" && (!exists || etag(old) != match) {
		return "", object.ErrChanged
	}
	if exists && !info.ModTime().After(old.ModTime()) {
		later := old.ModTime().Add(etagStep)
		if err := os.Chtimes(temp, later, later); err != nil {
			return "", err
		}
		if info, err = os.Lstat(temp); err != nil {
			return "", err
		}
	}
	return etag(info), os.Rename(temp, path)
}

// writeTemp makes a complete, fsynced file outside the keys and returns its path.
func (d *Dir) writeTemp(body []byte, modified time.Time) (path string, err error) {
	f, err := os.OpenFile(d.path(tempFolder, rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = errors.Join(writeAll(f, body, modified), f.Close())
	return f.Name(), err
}

func writeAll(f *os.File, body []byte, modified time.Time) error {
	if _, err := f.Write(body); err != nil {
		return err
	}
	if err := os.Chtimes(f.Name(), modified, modified); err != nil {
		return err
	}
	return f.Sync()
}

// makeFolder makes the folder and those above it where they are missing, and sees that their names are on disk.
func (d *Dir) makeFolder(folder string) error {
	if folder == d.root {
		return nil
	}
	d.mu.Lock()
	known := d.durable[folder]
	d.mu.Unlock()
	if known {
		return nil
	}
	parent := filepath.Dir(folder)
	if err := d.makeFolder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.syncFolder(parent); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.durable) == durableMax {
		clear(d.durable)
	}
	d.durable[folder] = true
	return nil
}

// forget drops folder, and what is below it, from the folders known to be on disk.
func (d *Dir) forget(folder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for known := range d.durable {
		if known == folder || strings.HasPrefix(known, folder+string(filepath.Separator)) {
			delete(d.durable, known)
		}
	}
}

// syncFolder makes the names in the folder at path durable.
func (d *Dir) syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return d.sync(folder)
}

// sync makes the names in folder durable. When it cannot, nobody knows which of them are, and the kernel may claim
// success the next time: d is spent.
func (d *Dir) sync(folder *os.File) error {
	err := fsync(folder)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("sync folder %s: %w: %w", folder.Name(), err, ErrLost)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == nil {
		d.lost = err
	}
	return err
}

// full adds object.ErrFull to an error that says that space or quota is used up.
func full(err error) error {
	if noSpace(err) && !errors.Is(err, ErrLost) {
		return fmt.Errorf("%w: %w", object.ErrFull, err)
	}
	return err
}
