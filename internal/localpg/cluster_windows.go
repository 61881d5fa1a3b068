package localpg

import (
	"context"
	"errors"
)

// ErrNoBinaries is what every Start returns on Windows: a cluster is bound to its owner by means of Unix.
var ErrNoBinaries = errors.New("no throwaway Postgres is started on Windows: set DATABASE_URL")

// Server is never made on Windows.
type Server struct{}

// Start returns ErrNoBinaries.
func Start(context.Context, Options) (*Server, error) { return nil, ErrNoBinaries }

// URL is empty.
func (*Server) URL() string { return "" }

// Stop does nothing.
func (*Server) Stop() error { return nil }
