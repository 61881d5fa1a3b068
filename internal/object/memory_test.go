package object_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/objecttest"
)

func TestMemory(t *testing.T) {
	m := object.NewMemory()
	objecttest.Conform(t, func() object.Store { return m })
}

func TestMemoryRefusesFoldersOfOthers(t *testing.T) {
	m := object.NewMemory()
	for _, c := range []struct {
		key string
		ok  bool
	}{{"a/b/c", true}, {"a/b", false}, {"a", false}, {"a/b/c/d", false}, {"a/b-", true}, {"a-", true}} {
		if _, err := m.Put(t.Context(), c.key, nil, object.Always()); (err == nil) != c.ok {
			t.Errorf("put %s: %v", c.key, err)
		}
	}
}

func TestValidKey(t *testing.T) {
	for _, c := range []struct {
		key string
		ok  bool
	}{
		{"control", true}, {"log/000000000000000a", true}, {"modules/ab.wasm", true}, {"a/..b/c-_.d", true},
		{strings.Repeat("a", 255), true}, {strings.Repeat("a", 256), false},
		{strings.Repeat("a/", 255) + "aa", true}, {strings.Repeat("a/", 256) + "a", false},
		{"", false}, {"/", false}, {"/a", false}, {"a/", false}, {"a//b", false}, {".", false}, {"a/..", false},
		{"a b", false}, {"a\\b", false}, {"~a", false}, {"é", false}, {"a\n", false}, {"a\x00b", false},
	} {
		if err := object.ValidKey(c.key); (err == nil) != c.ok {
			t.Errorf("%q: %v", c.key, err)
		}
	}
}

// FuzzValidKey checks that what is valid stays below the folder that it is joined to.
func FuzzValidKey(f *testing.F) {
	for _, s := range []string{"", "a/b", "../x", "a/./b", "a/../../b", "//", "a\x00", ".", "...", "a\\..\\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if object.ValidKey(key) != nil {
			return
		}
		if key == "" || len(key) > object.KeyBytesMax || strings.ContainsAny(key, "\\ ~:\x00") {
			t.Errorf("%q is valid", key)
		}
		for _, e := range strings.Split(key, "/") {
			if e == "" || e == "." || e == ".." || len(e) > object.ElementBytesMax {
				t.Errorf("%q is valid", key)
			}
		}
	})
}

func TestRangeCutNeverLeavesTheObject(t *testing.T) {
	const far = 1<<63 - 1
	for _, size := range []int64{0, 1, 10, far} {
		for _, offset := range []int64{0, 1, 9, 10, far, -1, -10, -far, -far - 1} {
			for _, length := range []int64{0, 1, 10, far, -1} {
				from, to, err := object.Range{Offset: offset, Length: length}.Cut(size)
				if err == nil && (from < 0 || to < from || to > size) {
					t.Errorf("%d+%d of %d: %d to %d", offset, length, size, from, to)
				}
			}
		}
	}
}

func TestIfMatchOfNothingPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an empty etag was taken for a condition")
		}
	}()
	object.IfMatch("")
}

// careless is a store that breaks one promise.
type careless struct {
	object.Store
	ignoreAbsent, ignoreMatch, swapsNever, forgets, wholeRanges, broken bool
}

var errBroken = errors.New("broken")

func (c careless) Put(ctx context.Context, key string, body []byte, cond object.Condition) (string, error) {
	switch {
	case c.broken:
		return "", errBroken
	case c.forgets:
		return "etag", nil
	case c.ignoreAbsent && cond.Absent(), c.ignoreMatch && cond.ETag() != "":
		cond = object.Always()
	case c.swapsNever && cond.ETag() != "":
		return "", object.ErrChanged
	}
	return c.Store.Put(ctx, key, body, cond)
}

func (c careless) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	if c.wholeRanges {
		r = object.Range{}
	}
	return c.Store.Get(ctx, key, r)
}

func TestSelfTest(t *testing.T) {
	for _, c := range []struct {
		name   string
		store  careless
		reason string // empty: fit
	}{
		{"fit", careless{}, ""},
		{"create twice", careless{ignoreAbsent: true}, "ignores If-None-Match"},
		{"stale swap", careless{ignoreMatch: true}, "ignores If-Match"},
		{"no swap", careless{swapsNever: true}, "refused to swap"},
		{"forgets", careless{forgets: true}, "does not read its own writes"},
		{"ranges", careless{wholeRanges: true}, "cut ranges"},
	} {
		t.Run(c.name, func(t *testing.T) {
			memory := object.NewMemory()
			c.store.Store = memory
			err := object.SelfTest(t.Context(), c.store)
			var unfit *object.UnfitError
			switch {
			case c.reason == "" && err != nil:
				t.Fatal(err)
			case c.reason != "" && (!errors.As(err, &unfit) || !strings.Contains(unfit.Reason, c.reason)):
				t.Fatalf("got %v, want a reason with %q", err, c.reason)
			}
			if left, _ := memory.List(t.Context(), "", "", 0); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if err := object.SelfTest(t.Context(), careless{Store: object.NewMemory(), broken: true}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the store's own error", err)
	}
}
