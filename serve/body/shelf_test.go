package body_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/body"
)

func key(n int) body.Key { return body.Key{Handle: shape.Handle{Shape: shape.ID(n)}} }

// made returns what fills a body of n bytes.
func made(n int) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return make([]byte, n), nil }
}

func TestShelfBound(t *testing.T) {
	s := body.NewShelf(10_000)
	a, b := s.Take(key(1), 1), s.Take(key(2), 1)
	for _, x := range []*body.Shared{a, b} {
		if _, err := s.Fill(t.Context(), x, made(4000)); err != nil {
			t.Fatal(err)
		}
	}
	third := s.Take(key(3), 1)
	if _, err := s.Fill(t.Context(), third, made(4000)); !errors.Is(err, body.ErrFull) {
		t.Errorf("a third body found room: %v", err)
	}
	s.Give(third)
	s.Give(a)
	third = s.Take(key(3), 1)
	if _, err := s.Fill(t.Context(), third, made(4000)); err != nil { // in place of the first
		t.Error(err)
	}
	s.Give(b)
	s.Give(third)
	if n := s.InUse(); n != 0 {
		t.Errorf("%d in use", n)
	}
	fills := s.Fills()
	for n, want := range map[int]int64{2: 0, 3: 0, 1: 1} {
		x := s.Take(key(n), 1)
		if _, err := s.Fill(t.Context(), x, made(4000)); err != nil {
			t.Error(err)
		}
		s.Give(x)
		if n == 1 && s.Fills()-fills != want {
			t.Errorf("%d bodies made again, want %d", s.Fills()-fills, want)
		}
	}
}

// TestShelfError: a body that could not be made is made anew by who comes next.
func TestShelfError(t *testing.T) {
	s, broken := body.NewShelf(10_000), errors.New("broken")
	a := s.Take(key(1), 2)
	for range 2 {
		_, err := s.Fill(t.Context(), a, func(context.Context) ([]byte, error) { return nil, broken })
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		s.Give(a)
	}
	b := s.Take(key(1), 1)
	if _, err := s.Fill(t.Context(), b, made(1)); err != nil {
		t.Error(err)
	}
	s.Give(b)
	s.Give(s.Take(key(9), 1)) // taken, but not wanted after all
	if n := s.InUse(); n != 0 {
		t.Errorf("%d in use", n)
	}
}

// TestShelfLeaver: who makes a body and leaves makes it for the others all the same; who waits may leave at once.
func TestShelfLeaver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gate := body.NewShelf(10_000), make(chan struct{})
		x := s.Take(key(1), 3)
		maker, leave := context.WithCancel(t.Context())
		errs := make(chan error, 3)
		go func() {
			_, err := s.Fill(maker, x, func(ctx context.Context) ([]byte, error) {
				<-gate
				return []byte("x"), ctx.Err()
			})
			s.Give(x)
			errs <- err
		}()
		synctest.Wait()
		waiter, gone := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{t.Context(), waiter} {
			go func() {
				data, err := s.Fill(ctx, x, made(0))
				if err == nil && string(data) != "x" {
					t.Errorf("got %q", data)
				}
				s.Give(x)
				errs <- err
			}()
		}
		synctest.Wait()
		gone()
		leave()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("the waiter got %v", err)
		}
		close(gate)
		<-errs
		if err := <-errs; err != nil && !errors.Is(err, context.Canceled) { // the maker's, or the other waiter's
			t.Error(err)
		}
		if n := s.InUse(); n != 0 {
			t.Errorf("%d in use", n)
		}
	})
}

func TestShelfHammer(t *testing.T) {
	s := body.NewShelf(20_000)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 2000 {
				n := rand.IntN(20)
				x := s.Take(key(n), 1)
				data, err := s.Fill(t.Context(), x, func(context.Context) ([]byte, error) {
					if rand.IntN(10) == 0 {
						return nil, context.DeadlineExceeded
					}
					return bytes.Repeat([]byte{byte(n)}, 1000*n), nil
				})
				if err == nil && (len(data) != 1000*n || n > 0 && data[len(data)-1] != byte(n)) {
					t.Errorf("body %d has %d bytes", n, len(data))
				}
				s.Give(x)
			}
		})
	}
	group.Wait()
	if n := s.InUse(); n != 0 {
		t.Errorf("%d in use", n)
	}
}
