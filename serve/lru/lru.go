// Package lru is a cache that forgets what has not been used for longest. It owns the bound: entries have a weight,
// in whatever unit the owner counts, and all that are kept weigh no more than allowed.
//
// It knows nothing of how a missing value is made, nor of values still in use: those that are dropped live on for as
// long as somebody has them.
package lru

import (
	"container/list"
	"sync"
)

// Cache keeps the values used last. Its methods may be called at the same time.
type Cache[K comparable, V any] struct {
	weightMax int64

	mu     sync.Mutex
	items  map[K]*list.Element
	order  *list.List // of *item, the longest unused first
	weight int64
}

type item[K comparable, V any] struct {
	key    K
	value  V
	weight int64
}

// New returns an empty cache of at most weightMax.
func New[K comparable, V any](weightMax int64) *Cache[K, V] {
	return &Cache[K, V]{weightMax: weightMax, items: make(map[K]*list.Element), order: list.New()}
}

// Get returns the value of key, which counts as used now.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.items[key]
	if e == nil {
		var none V
		return none, false
	}
	c.order.MoveToBack(e)
	return e.Value.(*item[K, V]).value, true
}

// Put keeps value in place of what key had. What weighs more than all is not kept.
func (c *Cache[K, V]) Put(key K, value V, weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.items[key]; e != nil {
		c.remove(e)
	}
	if weight > c.weightMax {
		return
	}
	for c.weight+weight > c.weightMax {
		c.remove(c.order.Front())
	}
	c.items[key] = c.order.PushBack(&item[K, V]{key, value, weight})
	c.weight += weight
}

func (c *Cache[K, V]) remove(e *list.Element) {
	i := c.order.Remove(e).(*item[K, V])
	delete(c.items, i.key)
	c.weight -= i.weight
}
