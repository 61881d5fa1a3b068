//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package dir

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the lock that orders replacing and removing among all processes, and returns what gives it back. Each
// call opens the file anew: the lock belongs to the open file, so it holds between goroutines as well.
func (d *Dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

func fsync(folder *os.File) error { return folder.Sync() }

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// notFolder reports that an element of the path is a file, so that nothing is below it.
func notFolder(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
