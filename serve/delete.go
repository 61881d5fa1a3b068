package serve

import (
	"fmt"
	"net/http"

	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/params"
)

var (
	errDeleteOff = message(http.StatusMethodNotAllowed, "DELETE not allowed")
	errNoShape   = message(http.StatusNotFound, "No existing shape found")
	errMismatch  = message(http.StatusBadRequest, "The specified shape definition and handle do not match. Please ensure "+
		"the shape definition is correct or omit the shape handle from the request to obtain a new one.")
)

// serveDelete drops a shape (protocol reference, 2.6).
func (s *Server) serveDelete(w http.ResponseWriter, r *http.Request, q *params.Query) error {
	ctx := r.Context()
	if !s.cfg.AllowDelete {
		return errDeleteOff
	}
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	d, err := params.ParseDeletion(q)
	if err != nil {
		return err
	}
	if err := s.sync(ctx); err != nil {
		return err
	}
	h, herr := shape.ParseHandle(d.Handle)
	if d.Definition != nil {
		found, ok, err := s.find(ctx, *d.Definition, d.Definition.Hash())
		switch {
		case err != nil:
			return err
		case !ok:
			return errNoShape
		case d.Handle != "" && (herr != nil || h.Shape != found.Shape):
			return errMismatch
		}
		h = found
	} else if herr != nil || !s.knows(h) {
		return errNoShape
	}
	if err := s.opener.Drop(ctx, h); err != nil {
		return fmt.Errorf("drop shape: %w", err)
	}
	// The next request must not find it any more.
	if err := s.sync(ctx); err != nil {
		return err
	}
	s.setCaching(w.Header(), caching{method: r.Method, status: http.StatusAccepted})
	respond(w, http.StatusAccepted)
	return nil
}
