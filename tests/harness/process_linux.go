package harness

import "syscall"

// dieWithParent makes the kernel end the process when the test process dies without its clean-ups, as it does when
// its time is up.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
