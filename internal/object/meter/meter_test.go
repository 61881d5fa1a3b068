package meter_test

import (
	"context"
	"errors"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/meter"
	"github.com/shapeline/shapeline/internal/object/objecttest"
)

func TestConform(t *testing.T) {
	s := object.NewMemory()
	objecttest.Conform(t, func() object.Store { return meter.New(s) })
}

// priced is a memory store that charges as S3 does, and fails when told to.
type priced struct {
	*object.Memory
	broken bool
}

var errBroken = errors.New("told to fail")

func (p *priced) Caps() object.Caps { return object.Caps{Name: "S3"} }

func (p *priced) Put(ctx context.Context, key string, b []byte, c object.Condition) (string, error) {
	if p.broken {
		return "", errBroken
	}
	return p.Memory.Put(ctx, key, b, c)
}

func TestCounts(t *testing.T) {
	ctx, p := t.Context(), &priced{Memory: object.NewMemory()}
	s := meter.New(p)
	_, _ = s.Put(ctx, "log/1", make([]byte, 10), object.IfAbsent())
	_, _ = s.Put(ctx, "log/1", make([]byte, 10), object.IfAbsent()) // there already: paid for, and no failure
	_, _ = s.Get(ctx, "log/1", object.Range{Length: 4})
	_, _ = s.Get(ctx, "log/2", object.Range{}) // not there: the same
	_, _ = s.List(ctx, "", "", 0)
	_ = s.Delete(ctx, "log/1")
	p.broken = true
	_, _ = s.Put(ctx, "control", nil, object.Always())
	want := []meter.Count{
		{Op: meter.Get, Kind: "log", Requests: 2, Bytes: 4, Dollars: 2 * 0.4e-6},
		{Op: meter.Put, Kind: "control", Requests: 1, Failures: 1, Dollars: 5e-6},
		{Op: meter.Put, Kind: "log", Requests: 2, Bytes: 20, Dollars: 2 * 5e-6},
		{Op: meter.List, Kind: "other", Requests: 1, Dollars: 5e-6},
		{Op: meter.Delete, Kind: "log", Requests: 1},
	}
	got := s.Counts()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

// nothing is a store that answers at no cost.
type nothing struct{ object.Store }

func (nothing) Caps() object.Caps                                                     { return object.Caps{} }
func (nothing) Put(context.Context, string, []byte, object.Condition) (string, error) { return "", nil }

func TestCountingAllocatesNothing(t *testing.T) {
	s, ctx := meter.New(nothing{}), context.Background()
	if n := testing.AllocsPerRun(100, func() { _, _ = s.Put(ctx, "log/0000000000000001", nil, object.IfAbsent()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
