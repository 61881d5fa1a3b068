package dir

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lock takes the lock that orders replacing and removing among all processes, and returns what gives it back.
func (d *Dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	var whole windows.Overlapped
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &whole)
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return func() { f.Close() }, nil
}

// fsync does nothing: folders cannot be synced here, and NTFS journals their changes in order.
func fsync(*os.File) error { return nil }

func noSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// notFolder reports that an element of the path is a file, so that nothing is below it.
func notFolder(err error) bool { return errors.Is(err, windows.ERROR_PATH_NOT_FOUND) }
