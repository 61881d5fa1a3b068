package localpg

import "syscall"

// dieWithParent asks the kernel to shut the process down at once when we die without having done so.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
