package object

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is a store in this process' memory: for tests, and for trying things out. It keeps the whole contract but
// durability.
type Memory struct {
	mu      sync.Mutex
	objects map[string]memoryObject
	keys    []string // of objects, sorted
	version uint64   // grows with every Put
}

type memoryObject struct {
	body     []byte // never changed once stored
	version  uint64
	modified time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: make(map[string]memoryObject)} }

// Caps implements Store.
func (m *Memory) Caps() Caps {
	return Caps{Name: "memory", FlushInterval: time.Millisecond, ProbeInterval: time.Millisecond, ListInterval: 5 * time.Millisecond}
}

// Get implements Reader.
func (m *Memory) Get(ctx context.Context, key string, r Range) (*Object, error) {
	if err := ready(ctx, key); err != nil {
		return nil, err
	}
	m.mu.Lock()
	o, ok := m.objects[key]
	m.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	size := int64(len(o.body))
	from, to, err := r.Cut(size)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return &Object{Body: bytes.Clone(o.body[from:to]), ETag: o.etag(), Size: size, Modified: o.modified}, nil
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, key string, body []byte, c Condition) (string, error) {
	if err := ready(ctx, key); err != nil {
		return "", err
	}
	o := memoryObject{body: bytes.Clone(body), modified: time.Now()}

	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.objects[key]
	switch {
	case c.Absent() && ok:
		return "", fmt.Errorf("put %s: %w", key, ErrExists)
	case c.ETag() != "" && (!ok || old.etag() != c.ETag()):
		return "", fmt.Errorf("put %s: %w", key, ErrChanged)
	}
	if !ok {
		at, err := m.place(key)
		if err != nil {
			return "", fmt.Errorf("put %s: %w", key, err)
		}
		m.keys = slices.Insert(m.keys, at, key)
	}
	m.version++
	o.version = m.version
	m.objects[key] = o
	return o.etag(), nil
}

// place returns where the new key belongs in m.keys. As a file system would, it refuses a key that is a folder of
// another, or has another as a folder.
func (m *Memory) place(key string) (int, error) {
	below, _ := slices.BinarySearch(m.keys, key+"/")
	if below < len(m.keys) && strings.HasPrefix(m.keys[below], key+"/") {
		return 0, fmt.Errorf("%s lies below it", m.keys[below])
	}
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		if _, ok := m.objects[key[:i]]; ok {
			return 0, fmt.Errorf("%s is an object, not a folder", key[:i])
		}
	}
	at, _ := slices.BinarySearch(m.keys, key)
	return at, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := ready(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	if at, ok := slices.BinarySearch(m.keys, key); ok {
		m.keys = slices.Delete(m.keys, at, at+1)
	}
	return nil
}

// List implements Reader.
func (m *Memory) List(ctx context.Context, prefix, after string, limit int) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at, found := slices.BinarySearch(m.keys, max(prefix, after))
	if found && after >= prefix {
		at++
	}
	var infos []Info
	for _, key := range m.keys[at:] {
		if !strings.HasPrefix(key, prefix) || limit > 0 && len(infos) == limit {
			break
		}
		o := m.objects[key]
		infos = append(infos, Info{Key: key, Size: int64(len(o.body)), Modified: o.modified})
	}
	return infos, nil
}

func (o memoryObject) etag() string { return strconv.FormatUint(o.version, 10) }

// ready returns the error of a call that must not begin.
func ready(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ValidKey(key)
}
