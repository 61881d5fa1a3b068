// Package localpg runs a throwaway Postgres cluster from the binaries that the machine already has, for
// `shapeline dev` without a database and for tests. It finds the binaries, makes a cluster, starts it on a
// loopback port with a real password and logical replication, stops it and removes its folder. It opens no
// connection: that the server is ready is read from its own pid file, as pg_ctl does.
//
// The one idea: the cluster belongs to this process. It runs in a process group of its own, so that Ctrl-C
// reaches us first and we stop it in order; on Linux the kernel stops it when we die without a word. Nothing in
// it is worth keeping, so fsync is off unless Options.Settings says otherwise. Postgres refuses to run as root:
// for root it runs as the user postgres, else nobody, in a folder which that user can reach.
package localpg

import "io"

// Options says how to run a cluster. The zero value is a cluster in the temporary folder, with the defaults below.
type Options struct {
	Dir      string            // where the cluster's folder is made; "", or out of its user's reach: a temporary place
	BinDir   string            // the folder with initdb and postgres; "": looked for in the usual places
	Settings map[string]string // server settings besides and above the defaults; fsync is off by default
	User     string            // the superuser; "": postgres
	Password string            // "": password
	Log      io.Writer         // receives the server's log; nil: nobody. Writes come from one goroutine
}
