//go:build !linux

package harness

import "syscall"

// dieWithParent does nothing: only Linux ties a process to its parent.
func dieWithParent(*syscall.SysProcAttr) {}
