package lru_test

import (
	"testing"

	"github.com/shapeline/shapeline/serve/lru"
)

func TestCache(t *testing.T) {
	c := lru.New[string, int](10)
	c.Put("a", 1, 4)
	c.Put("b", 2, 4)
	c.Get("a")       // b is now the longest unused
	c.Put("c", 3, 4) // no room for three
	c.Put("d", 4, 11)
	for key, want := range map[string]int{"a": 1, "b": 0, "c": 3, "d": 0} {
		if got, ok := c.Get(key); got != want || ok != (want != 0) {
			t.Errorf("%s: got %d, %v", key, got, ok)
		}
	}
	c.Put("a", 5, 9) // replaces, and drops c
	c.Put("e", 6, 1)
	for key, want := range map[string]int{"a": 5, "c": 0, "e": 6} {
		if got, _ := c.Get(key); got != want {
			t.Errorf("%s: got %d", key, got)
		}
	}
	c.Put("a", 7, 11) // too heavy: not even the old one is kept
	if _, ok := c.Get("a"); ok {
		t.Error("a is still there")
	}
}
