package shapelog

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/objecttest"
)

func TestFollowerWithoutALog(t *testing.T) {
	if _, err := OpenFollower(t.Context(), object.NewMemory(), void{}, FollowerOptions{}); !errors.Is(err, ErrNoLog) {
		t.Errorf("got %v", err)
	}
}

// follow opens a follower over store and lets it run until the test ends.
func follow(t *testing.T, store object.Reader, r Recovery, opts FollowerOptions) *Follower {
	t.Helper()
	f, err := OpenFollower(t.Context(), store, r, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ends with %v", err)
		}
	})
	return f
}

// TestFollowerProbes counts requests: none while nobody waits, about one each interval while somebody does, one every
// half second when nothing has come for long.
func TestFollowerProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objecttest.NewFaulty(t, object.NewMemory())
		w := openWriter(t, store, WriterOptions{})
		var waiting atomic.Bool
		f := follow(t, store, void{}, FollowerOptions{ProbeInterval: 20 * time.Millisecond, Waiting: waiting.Load})
		gets := func(d time.Duration) int {
			synctest.Wait()
			before := store.Counts().Gets
			time.Sleep(d)
			synctest.Wait()
			return store.Counts().Gets - before
		}
		if n := gets(time.Hour); n > 1 {
			t.Errorf("nobody waits: %d probes", n)
		}
		appendOne(t, w, 1)
		waiting.Store(true)
		f.Wake()
		if n := gets(time.Second); n < 40 || n > 55 {
			t.Errorf("somebody waits: %d probes in the first second", n)
		}
		gets(20 * time.Second)
		if n := gets(time.Minute); n < 115 || n > 125 {
			t.Errorf("nothing comes: %d probes in a minute", n)
		}
		appendOne(t, w, 2)
		gets(probeSlowest)
		if n := gets(time.Second); n < 40 {
			t.Errorf("something came: %d probes in the next second", n)
		}
		waiting.Store(false)
		gets(time.Second)
		if n := gets(24 * time.Hour); n != 0 {
			t.Errorf("nobody waits any more: %d probes", n)
		}
	})
}

// TestSyncSharesTheWork: many calls at the same time make two rounds at most: one may have begun too early.
func TestSyncSharesTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objecttest.NewFaulty(t, object.NewMemory())
		w := openWriter(t, store, WriterOptions{})
		seen := &reads{}
		f, err := OpenFollower(t.Context(), store, seen, FollowerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		appendOne(t, w, 1)
		synctest.Wait()
		store.Set(objecttest.Faults{Slow: 1, SlowDelay: time.Second})
		before := store.Counts().Gets
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if err := f.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		if n := store.Counts().Gets - before; n > 5 {
			t.Errorf("%d requests for 100 calls", n)
		}
		if seen.last != 1 {
			t.Errorf("read up to %d", seen.last)
		}
	})
}

func TestFollowerIsStalledUntilTheStoreRecovers(t *testing.T) {
	for _, faults := range []objecttest.Faults{{Down: true}, {BrokenRead: 1}, {ShortRead: 1}} {
		synctest.Test(t, func(t *testing.T) {
			store := objecttest.NewFaulty(t, object.NewMemory())
			w := openWriter(t, store, WriterOptions{})
			seen := &reads{}
			f := follow(t, store, seen, FollowerOptions{})
			synctest.Wait()
			appendOne(t, w, 1)
			synctest.Wait()
			store.Set(faults)
			f.Wake()
			time.Sleep(time.Hour)
			if since, err := f.Stalled(); err == nil || time.Since(since).Round(time.Minute) != time.Hour {
				t.Errorf("stalled since %v: %v", since, err)
			}
			if seen.last != 0 {
				t.Error("something was read from a broken store")
			}
			store.Set(objecttest.Faults{})
			time.Sleep(2 * retryMax)
			synctest.Wait()
			if _, err := f.Stalled(); err != nil || seen.last != 1 {
				t.Errorf("after the trouble: %v, read up to %d", err, seen.last)
			}
		})
	}
}

// TestFollowerStartsOver: after a failed Apply nothing is known, so the state is loaded anew.
func TestFollowerStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		w := openWriter(t, store, WriterOptions{})
		seen := &reads{}
		f, err := OpenFollower(t.Context(), store, seen, FollowerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		appendOne(t, w, 1)
		synctest.Wait()
		seen.fail = errors.New("half applied")
		if err := f.Sync(t.Context()); !errors.Is(err, seen.fail) && err == nil {
			t.Errorf("got %v", err)
		}
		if err := f.Sync(t.Context()); err != nil || len(seen.loaded) != 2 || len(seen.seqs) != Window+1 {
			t.Errorf("got %v, %+v", err, seen)
		}
	})
}

// TestFollowerBehindTheFloor: what it would have read next is gone, so it starts from the checkpoint.
func TestFollowerBehindTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		w := openWriter(t, store, WriterOptions{})
		seen := &reads{}
		f, err := OpenFollower(t.Context(), store, seen, FollowerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		appendOne(t, w, 1)
		time.Sleep(2 * Grace)
		last := appendOne(t, w, 2)
		synctest.Wait()
		collect(t, w, last)
		appendOne(t, w, 3)
		synctest.Wait()
		if err := f.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(seen.loaded) != 2 || seen.loaded[1].Seq != last || seen.last != 3 {
			t.Errorf("got %+v", seen)
		}
	})
}
