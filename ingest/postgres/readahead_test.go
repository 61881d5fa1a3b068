package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
)

// reading is a session with nothing but its read-ahead buffer.
func reading() *Session { return &Session{ahead: newReadAhead(), batch: &batch{}} }

func TestReadAheadKeepsOrder(t *testing.T) {
	s := reading()
	var writer sync.WaitGroup
	const total = 20_000
	writer.Go(func() {
		for i := range total {
			p, data := place{start: pg.LSN(i)}, bytes.Repeat([]byte{byte(i)}, i%300)
			if i%7 == 0 {
				p.keepalive, data = true, nil
			}
			for !s.ahead.put(data, p) {
				<-s.ahead.room
			}
		}
		s.ahead.fail(errors.New("the end"))
	})
	for i := range total {
		e, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			if e.Data != nil || e.WALEnd != pg.LSN(i) {
				t.Fatalf("event %d: %+v", i, e)
			}
		} else if !bytes.Equal(e.Data, bytes.Repeat([]byte{byte(i)}, i%300)) || e.WALStart != pg.LSN(i) || e.Data == nil {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	for range 2 {
		if _, err := s.Receive(t.Context()); err == nil || err.Error() != "the end" {
			t.Errorf("got %v", err)
		}
	}
	writer.Wait()
}

func TestReadAheadIsBounded(t *testing.T) {
	s := reading()
	n := 0
	for s.ahead.put(make([]byte, 1000), place{}) {
		n += 1000
	}
	if n > aheadBytesMax {
		t.Errorf("%d bytes", n)
	}
	s = reading()
	n = 0
	for s.ahead.put(nil, place{keepalive: true}) {
		n++
	}
	if n != aheadEventsMax {
		t.Errorf("%d events", n)
	}
	// What is larger than the bound goes alone, and its memory does not stay.
	s = reading()
	if !s.ahead.put(make([]byte, 5*aheadBytesMax), place{}) || s.ahead.put(nil, place{}) {
		t.Error("a huge message did not go alone")
	}
	for range 3 {
		if _, ok, err := s.Next(); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.ahead.put([]byte("small"), place{})
	}
	if n := cap(s.batch.data) + cap(s.ahead.fill.data); n > aheadBytesMax {
		t.Errorf("%d bytes are kept", n)
	}
}

func TestReceiveAgainAfterItsContextEnded(t *testing.T) {
	s := reading()
	s.ahead.put([]byte("a"), place{})
	if _, err := s.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		if _, err := s.Receive(ended); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	s.ahead.put([]byte("b"), place{})
	if e, err := s.Receive(t.Context()); err != nil || string(e.Data) != "b" {
		t.Errorf("got %q, %v", e.Data, err)
	}
}

func TestReadAheadAllocatesNothing(t *testing.T) {
	s := reading()
	message := []byte(fmt.Sprintf("%0200d", 1))
	round := func() {
		for s.ahead.put(message, place{}) {
		}
		for {
			if _, ok, _ := s.Next(); !ok {
				return
			}
		}
	}
	round()
	round()
	if n := testing.AllocsPerRun(10, round); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkReadAhead(b *testing.B) {
	s := reading()
	message := []byte(fmt.Sprintf("%0200d", 1))
	var writer sync.WaitGroup
	b.ReportAllocs()
	b.SetBytes(int64(len(message)))
	writer.Go(func() {
		for range b.N {
			for !s.ahead.put(message, place{}) {
				<-s.ahead.room
			}
		}
	})
	for range b.N {
		if _, err := s.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	writer.Wait()
}
