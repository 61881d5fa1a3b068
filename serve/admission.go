package serve

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/shapeline/shapeline/serve/params"
)

const codeOverloaded = "concurrent_request_limit_exceeded"

// gate bounds the requests of one kind that are under way.
type gate struct {
	kind string
	max  int64
	now  atomic.Int64
}

func (g *gate) enter() bool {
	if g.now.Add(1) <= g.max {
		return true
	}
	g.now.Add(-1)
	return false
}

// permit is a request's place behind one of the gates.
type permit struct {
	held     *gate
	existing *gate
}

// admit lets a request in, by the kind that it looks like (protocol reference, 4.6).
func (s *Server) admit(q *params.Query) (*permit, error) {
	g := &s.initial
	if handle, ok := q.Text("handle"); ok && s.knowsText(handle) {
		g = &s.existing
	}
	if !g.enter() {
		return nil, g.full()
	}
	return &permit{held: g, existing: &s.existing}, nil
}

// settle moves a request whose shape is there behind the wider gate, if there is room.
func (p *permit) settle() {
	if p.held != p.existing && p.existing.enter() {
		p.held.now.Add(-1)
		p.held = p.existing
	}
}

func (p *permit) leave() { p.held.now.Add(-1) }

func (g *gate) full() *failure {
	text := fmt.Sprintf("Concurrent %s request limit exceeded (limit: %d), please retry", g.kind, g.max)
	return overloaded(text, 6+rand.IntN(5)) // so that not all come back at once
}
