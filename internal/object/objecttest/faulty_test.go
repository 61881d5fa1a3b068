package objecttest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/objecttest"
)

func TestFaultyWithoutFaultsConforms(t *testing.T) {
	f := objecttest.NewFaulty(t, object.NewMemory())
	objecttest.Conform(t, func() object.Store { return f })
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults objecttest.Faults
		put    error // of the Put; nil: none
		stored bool  // when Put has returned
		later  bool  // when Wait has
		get    error
		body   string
	}{
		{"none", objecttest.Faults{}, nil, true, true, nil, "body"},
		{"lost request", objecttest.Faults{LostRequest: 1}, objecttest.ErrFault, false, false, objecttest.ErrFault, ""},
		{"lost reply", objecttest.Faults{LostReply: 1}, objecttest.ErrFault, true, true, objecttest.ErrFault, ""},
		{"ghost", objecttest.Faults{Ghost: 1, GhostDelay: time.Hour}, objecttest.ErrFault, false, true, objecttest.ErrFault, ""},
		{"broken read", objecttest.Faults{BrokenRead: 1}, nil, true, true, objecttest.ErrFault, ""},
		{"short read", objecttest.Faults{ShortRead: 1}, nil, true, true, nil, "bo"},
		{"slow", objecttest.Faults{Slow: 1, SlowDelay: time.Hour}, nil, true, true, nil, "body"},
		{"full", objecttest.Faults{Full: true}, object.ErrFull, false, false, object.ErrNotFound, ""},
		{"down", objecttest.Faults{Down: true}, objecttest.ErrFault, false, false, objecttest.ErrFault, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := object.NewMemory()
				f := objecttest.NewFaulty(t, inner)
				f.Set(c.faults)
				stored := func() bool {
					_, err := inner.Get(t.Context(), "a", object.Range{})
					return err == nil
				}
				_, err := f.Put(t.Context(), "a", []byte("body"), object.IfAbsent())
				if !errors.Is(err, c.put) || stored() != c.stored {
					t.Errorf("put: %v, stored %t; want %v, %t", err, stored(), c.put, c.stored)
				}
				f.Wait()
				if stored() != c.later {
					t.Errorf("stored later: %t", stored())
				}
				o, err := f.Get(t.Context(), "a", object.Range{})
				if !errors.Is(err, c.get) || err == nil && string(o.Body) != c.body {
					t.Errorf("get: %v, %v; want %q, %v", o, err, c.body, c.get)
				}
				if got, want := f.Counts(), (objecttest.Counts{Gets: 1, Puts: 1}); got != want {
					t.Errorf("counted %+v, want %+v", got, want)
				}
			})
		})
	}
}
