package object

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// selfTestPrefix is the folder of SelfTest's scratch objects; whatever is in it may be deleted.
const selfTestPrefix = "selftest/"

// UnfitError says that a store does not keep the contract of Store. Its message is for the operator.
type UnfitError struct {
	Store  string // Caps.Name
	Reason string // one sentence: what was asked, what happened, what that means
}

// Error returns the reason, after the store's name.
func (e *UnfitError) Error() string {
	return fmt.Sprintf("the %s store is unfit: %s; use another bucket", e.Store, e.Reason)
}

// SelfTest asks s, by a few requests on a scratch key of its own, whether it keeps the promises that the log stands
// on: create-if-absent refuses a second create, a swap refuses a stale etag, a read sees the write before it, ranges
// are cut as asked. The error is an *UnfitError if s breaks one, or the store's own if it cannot be asked. Some stores
// that speak S3 accept the conditions and ignore them: nothing must be written to those.
func SelfTest(ctx context.Context, s Store) error {
	p := probe{store: s, key: selfTestPrefix + rand.Text()}
	err := p.run(ctx)
	if derr := s.Delete(ctx, p.key); err == nil && derr != nil {
		err = fmt.Errorf("test the bucket: delete %s: %w", p.key, derr)
	}
	return err
}

type probe struct {
	store Store
	key   string
}

func (p probe) run(ctx context.Context) error {
	first, second, third := []byte("first version, 0123456789"), []byte("second version"), []byte("third")
	etag, err := p.store.Put(ctx, p.key, first, IfAbsent())
	if errors.Is(err, ErrExists) {
		return p.unfit("the store says that an object exists under a random name that nobody used before")
	} else if err != nil {
		return fmt.Errorf("test the bucket: create %s: %w", p.key, err)
	}
	if err := p.reads(ctx, first); err != nil {
		return err
	}
	if err := p.ranges(ctx, first); err != nil {
		return err
	}

	_, err = p.store.Put(ctx, p.key, second, IfAbsent())
	switch {
	case err == nil:
		return p.unfit("the store accepted the creation of one object twice: it ignores If-None-Match; " +
			"Shapeline cannot keep one log in it")
	case !errors.Is(err, ErrExists):
		return fmt.Errorf("test the bucket: create %s again: %w", p.key, err)
	}

	if _, err = p.store.Put(ctx, p.key, second, IfMatch(etag)); errors.Is(err, ErrChanged) {
		return p.unfit("the store refused to swap an object by the ETag it had just given: " +
			"Shapeline cannot pass the log from one writer to the next in it")
	} else if err != nil {
		return fmt.Errorf("test the bucket: swap %s: %w", p.key, err)
	}
	_, err = p.store.Put(ctx, p.key, third, IfMatch(etag))
	switch {
	case err == nil:
		return p.unfit("the store accepted a swap by the ETag of a version already replaced: it ignores If-Match; " +
			"two writers could own the log in it")
	case !errors.Is(err, ErrChanged):
		return fmt.Errorf("test the bucket: swap %s by a stale etag: %w", p.key, err)
	}
	return p.reads(ctx, second)
}

// reads checks that the object is what was put last, in a Get and in a List.
func (p probe) reads(ctx context.Context, want []byte) error {
	o, err := p.store.Get(ctx, p.key, Range{})
	switch {
	case errors.Is(err, ErrNotFound):
		return p.unfit("the store did not find an object that it had just accepted: it does not read its own writes")
	case err != nil:
		return fmt.Errorf("test the bucket: get %s: %w", p.key, err)
	case !bytes.Equal(o.Body, want):
		return p.unfit("the store returned other bytes than it had just accepted")
	case o.ETag == "":
		return p.unfit("the store gave no ETag for an object")
	}
	infos, err := p.store.List(ctx, p.key, "", 1)
	if err != nil {
		return fmt.Errorf("test the bucket: list %s: %w", p.key, err)
	}
	if len(infos) != 1 || infos[0].Key != p.key || infos[0].Size != int64(len(want)) {
		return p.unfit("the store did not list an object that it had just accepted")
	}
	return nil
}

func (p probe) ranges(ctx context.Context, body []byte) error {
	n := int64(len(body))
	for _, r := range []Range{{Offset: 2, Length: 3}, {Offset: n - 4}, {Offset: -5}} {
		from, to, err := r.Cut(n)
		if err != nil {
			panic("object: a range of the self-test lies behind its object")
		}
		o, err := p.store.Get(ctx, p.key, r)
		if err != nil {
			return fmt.Errorf("test the bucket: get a range of %s: %w", p.key, err)
		}
		if !bytes.Equal(o.Body, body[from:to]) || o.Size != n {
			return p.unfit("the store does not cut ranges as asked")
		}
	}
	return nil
}

func (p probe) unfit(reason string) error {
	return &UnfitError{Store: p.store.Caps().Name, Reason: reason}
}
