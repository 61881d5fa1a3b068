// Package meter counts what a process asks of its bucket: requests, bytes and what they cost at list price, by kind of
// request and by kind of object. It owns the price table; it shows the counts to whoever asks, and stores nothing.
package meter

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/shapeline/shapeline/internal/object"
)

// Op is a kind of request.
type Op int

// The kinds of request.
const (
	Get Op = iota
	Put
	List
	Delete
	ops
)

// String names the request as /metrics does.
func (o Op) String() string { return [...]string{"get", "put", "list", "delete"}[o] }

// kinds are the kinds of object, by the first element of the key.
var kinds = [...]string{"control", "log", "pack", "catalog", "shapes", "definitions", "requests", "other"}

func kindOf(key string) int {
	first, _, _ := strings.Cut(key, "/")
	for i, k := range kinds[:len(kinds)-1] {
		if k == first {
			return i
		}
	}
	return len(kinds) - 1
}

// price is what a store charges, in dollars: list prices of October 2026, us-east-1. Deletes are free everywhere.
type price struct{ put, get, perByteUp float64 }

var prices = map[string]price{ // by object.Caps.Name; what is not here costs nothing a request
	"S3":         {put: 5e-6, get: 0.4e-6},
	"S3 Express": {put: 1.13e-6, get: 0.03e-6, perByteUp: 0.0032 / (1 << 30)},
}

// Count is what was asked so far of one kind of object by one kind of request.
type Count struct {
	Op       Op
	Kind     string
	Requests int64 // those that failed among them
	Failures int64 // an object that is not there, or a condition that does not hold, is none
	Bytes    int64 // of bodies
	Dollars  float64
}

type counter struct{ requests, failures, bytes atomic.Int64 }

// Store counts what goes through it to another store.
type Store struct {
	object.Store
	price  price
	counts [ops][len(kinds)]counter
}

// New returns a store that counts what it asks of s.
func New(s object.Store) *Store { return &Store{Store: s, price: prices[s.Caps().Name]} }

func (s *Store) count(op Op, key string, bytes int, err error) {
	c := &s.counts[op][kindOf(key)]
	c.requests.Add(1)
	c.bytes.Add(int64(bytes))
	for _, expected := range []error{nil, object.ErrNotFound, object.ErrExists, object.ErrChanged, object.ErrRange} {
		if errors.Is(err, expected) {
			return
		}
	}
	c.failures.Add(1)
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	o, err := s.Store.Get(ctx, key, r)
	n := 0
	if err == nil {
		n = len(o.Body)
	}
	s.count(Get, key, n, err)
	return o, err
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	etag, err := s.Store.Put(ctx, key, body, c)
	s.count(Put, key, len(body), err)
	return etag, err
}

// List implements object.Store. A long list is several requests, of a thousand names each.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	infos, err := s.Store.List(ctx, prefix, after, limit)
	s.count(List, prefix, 0, err)
	for n := len(infos); n > 1000; n -= 1000 {
		s.count(List, prefix, 0, nil)
	}
	return infos, err
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.Store.Delete(ctx, key)
	s.count(Delete, key, 0, err)
	return err
}

// Counts returns everything counted so far, but what was never asked.
func (s *Store) Counts() []Count {
	var all []Count
	for op := range ops {
		for k, kind := range kinds {
			c := &s.counts[op][k]
			n := Count{Op: op, Kind: kind, Requests: c.requests.Load(), Failures: c.failures.Load(), Bytes: c.bytes.Load()}
			switch op {
			case Put:
				n.Dollars = float64(n.Requests)*s.price.put + float64(n.Bytes)*s.price.perByteUp
			case List:
				n.Dollars = float64(n.Requests) * s.price.put
			case Get:
				n.Dollars = float64(n.Requests) * s.price.get
			}
			if n.Requests > 0 {
				all = append(all, n)
			}
		}
	}
	return all
}
