// Package objecttest has what tests of stores, and of code above stores, share: Conform, the acceptance suite that
// every object.Store passes, wrappers included, and Faulty, a store that fails in all the ways that real ones do.
//
// It knows no driver. The one idea: whoever writes with a condition gets either exactly one winner or an error that
// says nothing about the effect, so the suite races writers, and Faulty separates effects from replies.
package objecttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
)

const (
	racers    = 16
	rounds    = 4       // of each race
	bodyBytes = 1 << 20 // the large body; segments and pages are of this order
)

// Conform tests that the stores that open returns keep the contract of object.Store. All of them must be the same
// bucket; each call stands for another process that opens it. The suite writes below a random prefix and deletes
// what it wrote.
func Conform(t *testing.T, open func() object.Store) {
	for _, c := range []struct {
		name string
		test func(s suite)
	}{
		{"conditions", suite.conditions},
		{"ranges", suite.ranges},
		{"list", suite.list},
		{"delete", suite.delete},
		{"refusals", suite.refusals},
		{"ownership", suite.ownership},
		{"self-test", suite.selfTest},
		{"create race", suite.createRace},
		{"swap race", suite.swapRace},
		{"counter", suite.counter},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := suite{T: t, open: open, store: open(), prefix: "conform-" + rand.Text() + "/"}
			t.Cleanup(s.clean)
			c.test(s)
		})
	}
}

type suite struct {
	*testing.T
	open   func() object.Store
	store  object.Store
	prefix string
}

func (s suite) clean() {
	ctx := context.WithoutCancel(s.Context())
	infos, err := s.store.List(ctx, s.prefix, "", 0)
	if err != nil {
		s.Fatal(err)
	}
	for _, i := range infos {
		if err := s.store.Delete(ctx, i.Key); err != nil {
			s.Error(err)
		}
	}
}

// put puts and checks that the outcome is want. It returns the etag.
func (s suite) put(key, body string, c object.Condition, want error) string {
	s.Helper()
	etag, err := s.store.Put(s.Context(), s.prefix+key, []byte(body), c)
	if !errors.Is(err, want) {
		s.Fatalf("put %s: got %v, want %v", key, err, want)
	}
	if err == nil && etag == "" {
		s.Fatalf("put %s: no etag", key)
	}
	return etag
}

// get checks that the object has the body want, and that its etag is the one given, if any.
func (s suite) get(key, want, etag string) *object.Object {
	s.Helper()
	o, err := s.store.Get(s.Context(), s.prefix+key, object.Range{})
	switch {
	case err != nil:
		s.Fatal(err)
	case string(o.Body) != want || o.Size != int64(len(want)):
		s.Fatalf("get %s: got %d bytes %.40q of %d, want %.40q", key, len(o.Body), o.Body, o.Size, want)
	case etag != "" && o.ETag != etag:
		s.Fatalf("get %s: etag %s, Put returned %s", key, o.ETag, etag)
	case o.Modified.IsZero():
		s.Fatalf("get %s: no time", key)
	}
	return o
}

func (s suite) missing(key string) {
	s.Helper()
	if _, err := s.store.Get(s.Context(), s.prefix+key, object.Range{}); !errors.Is(err, object.ErrNotFound) {
		s.Fatalf("get %s: got %v, want ErrNotFound", key, err)
	}
}

func (s suite) conditions() {
	s.missing("a")
	s.missing("a/b/c")
	s.put("a", "0", object.IfMatch("0-0"), object.ErrChanged)
	s.missing("a")
	one := s.put("a", "1", object.IfAbsent(), nil)
	s.get("a", "1", one)
	s.put("a", "2", object.IfAbsent(), object.ErrExists)
	s.get("a", "1", one)

	two := s.put("a", "2", object.IfMatch(one), nil)
	s.put("a", "3", object.IfMatch(one), object.ErrChanged)
	s.get("a", "2", two)
	three := s.put("a", "3", object.Always(), nil)
	s.put("a", "4", object.IfMatch(two), object.ErrChanged)
	four := s.put("a", "4", object.IfMatch(three), nil)
	s.get("a", "4", four)

	// Versions that follow each other at once, of one size, must not share an etag.
	seen := map[string]bool{}
	etag := four
	for i := range 50 {
		etag = s.put("a", string(rune('a'+i%26))+string(rune('a'+i/26)), object.IfMatch(etag), nil)
		if seen[etag] {
			s.Fatalf("version %d has the etag of an earlier one", i)
		}
		seen[etag] = true
	}

	if err := s.store.Delete(s.Context(), s.prefix+"a"); err != nil {
		s.Fatal(err)
	}
	s.put("a", "5", object.IfMatch(etag), object.ErrChanged)
	s.put("a", "5", object.IfAbsent(), nil)
	s.put("a", "6", object.IfMatch(etag), object.ErrChanged)
	s.put("deep/down/in/folders", "", object.IfAbsent(), nil)
	s.get("deep/down/in/folders", "", "")
	large := strings.Repeat("0123456789abcdef", bodyBytes/16)
	s.get("large", large, s.put("large", large, object.IfAbsent(), nil))
}

func (s suite) ranges() {
	s.put("a", "0123456789", object.IfAbsent(), nil)
	s.put("empty", "", object.IfAbsent(), nil)
	for _, c := range []struct {
		key  string
		r    object.Range
		want string
		err  error
	}{
		{"a", object.Range{}, "0123456789", nil},
		{"a", object.Range{Length: 3}, "012", nil},
		{"a", object.Range{Offset: 3}, "3456789", nil},
		{"a", object.Range{Offset: 3, Length: 1}, "3", nil},
		{"a", object.Range{Offset: 8, Length: 2}, "89", nil},
		{"a", object.Range{Offset: 8, Length: 3}, "89", nil},
		{"a", object.Range{Length: 1 << 62}, "0123456789", nil},
		{"a", object.Range{Offset: 9, Length: 1<<63 - 1}, "9", nil},
		{"a", object.Range{Offset: -4}, "6789", nil},
		{"a", object.Range{Offset: -4, Length: 2}, "67", nil},
		{"a", object.Range{Offset: -40}, "0123456789", nil},
		{"a", object.Range{Offset: 10}, "", object.ErrRange},
		{"a", object.Range{Offset: 11, Length: 1}, "", object.ErrRange},
		{"empty", object.Range{}, "", nil},
		{"empty", object.Range{Offset: 1}, "", object.ErrRange},
		{"none", object.Range{Offset: 1}, "", object.ErrNotFound},
	} {
		o, err := s.store.Get(s.Context(), s.prefix+c.key, c.r)
		if !errors.Is(err, c.err) {
			s.Errorf("%s %+v: got error %v, want %v", c.key, c.r, err, c.err)
		} else if err == nil && (string(o.Body) != c.want || c.key == "a" && o.Size != 10) {
			s.Errorf("%s %+v: got %q of %d, want %q", c.key, c.r, o.Body, o.Size, c.want)
		}
	}
}

func (s suite) list() {
	// In byte order; "-" and "." come before the slash, letters and digits after.
	keys := []string{"a-b", "a.b", "a/a", "a/b-c", "a/b/c", "a/b0", "a0", "aa/x", "b/1", "b/2", "b/3"}
	for _, k := range slices.Backward(keys) {
		s.put(k, k, object.IfAbsent(), nil)
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
	}{
		{"", "", 0}, {"", "", 3}, {"", "", 100}, {"a", "", 0}, {"a/", "", 0}, {"a/b", "", 0}, {"a/b", "", 1},
		{"", "a/b-c", 2}, {"", "a/b/", 1}, {"", "a/b/c", 1}, {"a", "a/b0", 0}, {"b/", "a", 0}, {"b/", "b/2", 0},
		{"b/", "b/3", 0}, {"b/", "c", 0}, {"b", "b/1", 1}, {"c", "", 0}, {"b/1", "b/0", 0}, {"b/1/x", "", 0},
	} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, c.prefix) && k > c.after && (c.limit <= 0 || len(want) < c.limit) {
				want = append(want, k)
			}
		}
		after := ""
		if c.after != "" {
			after = s.prefix + c.after
		}
		infos, err := s.store.List(s.Context(), s.prefix+c.prefix, after, c.limit)
		if err != nil {
			s.Fatal(err)
		}
		var got []string
		for _, i := range infos {
			key := strings.TrimPrefix(i.Key, s.prefix)
			got = append(got, key)
			if i.Size != int64(len(key)) || i.Modified.IsZero() {
				s.Errorf("list: %s has size %d and time %v", key, i.Size, i.Modified)
			}
		}
		if !slices.Equal(got, want) {
			s.Errorf("list %q after %q limit %d: got %q, want %q", c.prefix, c.after, c.limit, got, want)
		}
	}
}

func (s suite) delete() {
	del := func(key string) {
		s.Helper()
		if err := s.store.Delete(s.Context(), s.prefix+key); err != nil {
			s.Fatal(err)
		}
	}
	del("none")
	del("none/at/all")
	s.put("f/g/a", "1", object.IfAbsent(), nil)
	s.put("f/g/b", "2", object.IfAbsent(), nil)
	del("f/g")
	del("f/g/a/x")
	del("f/g/a")
	s.missing("f/g/a")
	s.get("f/g/b", "2", "")
	del("f/g/b")
	s.missing("f/g/b")
	s.put("f/g/a", "3", object.IfAbsent(), nil)
	s.get("f/g/a", "3", "")
}

func (s suite) refusals() {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a b", "~tmp/a", "ä", "a\x00"} {
		if _, err := s.store.Put(s.Context(), key, nil, object.Always()); err == nil {
			s.Errorf("key %q was accepted", key)
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := s.store.Put(ctx, s.prefix+"late", nil, object.IfAbsent()); !errors.Is(err, context.Canceled) {
		s.Errorf("put after cancel: %v", err)
	}
	if _, err := s.store.Get(ctx, s.prefix+"late", object.Range{}); !errors.Is(err, context.Canceled) {
		s.Errorf("get after cancel: %v", err)
	}
	if _, err := s.store.List(ctx, s.prefix, "", 0); !errors.Is(err, context.Canceled) {
		s.Errorf("list after cancel: %v", err)
	}
	s.missing("late")
}

// ownership checks that neither side keeps the other's bytes.
func (s suite) ownership() {
	body := []byte("before")
	if _, err := s.store.Put(s.Context(), s.prefix+"a", body, object.IfAbsent()); err != nil {
		s.Fatal(err)
	}
	copy(body, "AFTER!")
	o := s.get("a", "before", "")
	copy(o.Body, "AFTER!")
	s.get("a", "before", "")
}

func (s suite) selfTest() {
	if err := object.SelfTest(s.Context(), s.store); err != nil {
		s.Fatal(err)
	}
}

// race lets n writers, each with a store of its own, act at the same time.
func (s suite) race(n int, act func(i int, store object.Store)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		store := s.open()
		wg.Go(func() {
			<-start
			act(i, store)
		})
	}
	close(start)
	wg.Wait()
}

func (s suite) createRace() {
	for _, n := range []int{2, racers} {
		for _, size := range []int{0, 16, bodyBytes} {
			for round := range rounds {
				s.oneWinner(n, fmt.Sprintf("create/%d-%d-%d", n, size, round), size, object.IfAbsent(), object.ErrExists)
			}
		}
	}
}

func (s suite) swapRace() {
	for _, n := range []int{2, racers} {
		for _, size := range []int{16, bodyBytes} {
			for round := range rounds {
				key := fmt.Sprintf("swap/%d-%d-%d", n, size, round)
				etag := s.put(key, "first", object.IfAbsent(), nil)
				s.oneWinner(n, key, size, object.IfMatch(etag), object.ErrChanged)
			}
		}
	}
}

// oneWinner races n puts under one condition: one succeeds, the others get lost, and the object is the winner's. A
// connection that breaks says nothing about who won: some servers refuse a put before they have read it.
func (s suite) oneWinner(n int, key string, size int, c object.Condition, lost error) {
	s.Helper()
	etags, errs, bodies := make([]string, n), make([]error, n), make([][]byte, n)
	for i := range n {
		bodies[i] = append(fmt.Appendf(nil, "%02d", i), make([]byte, size)...)
	}
	s.race(n, func(i int, store object.Store) {
		etags[i], errs[i] = store.Put(s.Context(), s.prefix+key, bodies[i], c)
	})
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			s.Fatalf("%s: writers %d and %d both won", key, winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, lost) && !broken(err):
			s.Fatalf("%s: writer %d: got %v, want %v", key, i, err, lost)
		}
	}
	if winner < 0 { // the winner may be one of those whose reply was lost
		o, err := s.store.Get(s.Context(), s.prefix+key, object.Range{})
		if err != nil || !slices.ContainsFunc(bodies, func(b []byte) bool { return bytes.Equal(b, o.Body) }) {
			s.Fatalf("%s: nobody won (%v)", key, err)
		}
		return
	}
	o := s.get(key, string(bodies[winner]), etags[winner])
	if !bytes.Equal(o.Body[:2], bodies[winner][:2]) {
		s.Fatalf("%s: the object is not the winner's", key)
	}
}

// broken reports whether a connection broke.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

// counter lets writers add to one number by swaps: no addition is lost, also when an object comes and goes.
func (s suite) counter() {
	const writers, adds = 4, 8
	s.put("counter", "0", object.IfAbsent(), nil)
	s.race(writers, func(i int, store object.Store) {
		for done := 0; done < adds; {
			o, err := store.Get(s.Context(), s.prefix+"counter", object.Range{})
			if err != nil {
				s.Error(err)
				return
			}
			var n int
			if _, err := fmt.Sscan(string(o.Body), &n); err != nil {
				s.Error(err)
				return
			}
			_, err = store.Put(s.Context(), s.prefix+"counter", fmt.Append(nil, n+1), object.IfMatch(o.ETag))
			if err == nil {
				done++
			} else if !errors.Is(err, object.ErrChanged) {
				s.Error(err)
				return
			}
		}
	})
	s.get("counter", fmt.Sprint(writers*adds), "")
}
