package pulse_test

import (
	"testing"

	"github.com/shapeline/shapeline/serve/pulse"
)

func TestPulse(t *testing.T) {
	var p pulse.Pulse
	p.Beat() // for nobody
	first, same := p.Next(), p.Next()
	if first != same {
		t.Error("who waits for the same beat gets two channels")
	}
	select {
	case <-first:
		t.Error("a beat that was over when the wait began ended it")
	default:
	}
	p.Beat()
	<-first
	select {
	case <-p.Next():
		t.Error("the next wait has ended already")
	default:
	}
}
