// Package pulse lets any number of goroutines wait for the next time that something happens, at no cost while nobody
// does. It knows nothing of what happens.
package pulse

import "sync"

// Pulse is a beat that may come again and again. The zero Pulse is ready.
type Pulse struct {
	mu sync.Mutex
	c  chan struct{} // nil if nobody waits
}

// Next returns a channel that the next Beat closes.
func (p *Pulse) Next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		p.c = make(chan struct{})
	}
	return p.c
}

// Beat ends the wait of all who wait now.
func (p *Pulse) Beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c != nil {
		close(p.c)
		p.c = nil
	}
}
