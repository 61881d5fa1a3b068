package serve

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/shape"
)

// ask returns a Requester over the plant's store, and through it the answer to a definition.
func ask(p *plant, c context.Context, table string) (shape.Handle, error) {
	r := &Requester{Store: p.store, Known: func(ctx context.Context, h shape.Handle) (bool, error) {
		err := p.s.sync(ctx)
		return p.s.knows(h), err
	}}
	return r.Open(c, definition(table))
}

func definition(table string) shape.Definition {
	return shape.Definition{Table: shape.Table{Schema: "public", Name: table}}.Canonical()
}

// pending returns the requests that lie in the bucket.
func pending(t *testing.T, p *plant) []catalog.Request {
	t.Helper()
	infos, err := p.store.List(t.Context(), catalog.RequestsPrefix, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []catalog.Request
	for _, i := range infos {
		r, err := catalog.GetRequest(t.Context(), p.store, i.Key)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

type opened struct {
	h   shape.Handle
	err error
}

func TestRequesterGranted(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("others")
		// A pointer to a shape that is gone is no answer.
		if err := catalog.PutPointer(t.Context(), p.store, definition("items"), shape.Handle{Shape: 77}); err != nil {
			t.Fatal(err)
		}
		open := func() opened {
			h, err := ask(p, t.Context(), "items")
			return opened{h, err}
		}
		a, b := later(open), later(open)
		time.Sleep(time.Second)
		requests := pending(t, p)
		if len(requests) != 1 || requests[0].Open == nil || requests[0].Open.Hash() != definition("items").Hash() {
			t.Fatalf("requests %+v", requests)
		}
		if _, err := p.Open(t.Context(), *requests[0].Open); err != nil {
			t.Fatal(err)
		}
		if err := p.store.Delete(t.Context(), requests[0].Key()); err != nil {
			t.Fatal(err)
		}
		for _, got := range []opened{<-a, <-b} {
			if got.err != nil || got.h != (shape.Handle{Shape: 2}) {
				t.Errorf("got %v, %v", got.h, got.err)
			}
		}
		if left := pending(t, p); len(left) != 0 {
			t.Errorf("left %+v", left)
		}
	})
}

func TestRequesterRefused(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("others")
		d := definition("items")
		stale := catalog.Request{Open: &d}
		if err := stale.Refuse(t.Context(), p.store, shape.Invalid("where", "old")); err != nil {
			t.Fatal(err)
		}
		answer := later(func() error {
			_, err := ask(p, t.Context(), "items")
			return err
		})
		time.Sleep(time.Second)
		for _, r := range pending(t, p) {
			if err := r.Refuse(t.Context(), p.store, shape.Invalid("where", "new")); err != nil {
				t.Fatal(err)
			}
		}
		var why *shape.Refusal
		if err := <-answer; !errors.As(err, &why) || why.Texts[0] != "new" {
			t.Errorf("got %v", err)
		}
		if left := pending(t, p); len(left) != 0 {
			t.Errorf("left %+v", left)
		}
	})
}

func TestRequesterGivesUp(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.handle("others")
		began := time.Now()
		_, err := ask(p, t.Context(), "items")
		var why *shape.Refusal
		if d := time.Since(began); !errors.As(err, &why) || why.Status != 503 || d != 30*time.Second {
			t.Errorf("after %v: %v", d, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		answer := later(func() error {
			_, err := ask(p, ctx, "items")
			return err
		})
		time.Sleep(time.Second)
		cancel()
		if err := <-answer; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestBucketAlone: a server without an Opener asks for shapes and their end through the bucket.
func TestBucketAlone(t *testing.T) {
	bubble(t, Config{AllowDelete: true}, func(t *testing.T, p *plant) {
		p.s.opener = New(Config{Store: p.store}).opener
		p.s.opener.(*Requester).Known = func(ctx context.Context, h shape.Handle) (bool, error) {
			err := p.s.sync(ctx)
			return p.s.knows(h), err
		}
		serveRequests := func() {
			time.Sleep(time.Second)
			for _, r := range pending(t, p) {
				if r.Open != nil {
					if _, err := p.Open(t.Context(), *r.Open); err != nil {
						t.Error(err)
					}
				} else {
					p.drop(*r.Drop, nil)
				}
				if err := p.store.Delete(t.Context(), r.Key()); err != nil && !errors.Is(err, object.ErrNotFound) {
					t.Error(err)
				}
			}
		}
		first := later(func() answered { return p.get("table=items&offset=-1") })
		serveRequests()
		expect(t, <-first, 200, snapshotEnd, "electric-handle", "1-0")
		deleted := later(func() answered { return p.do("DELETE", "/v1/shape?handle=1-0", "") })
		serveRequests()
		expect(t, <-deleted, 202, "")
		expect(t, p.do("DELETE", "/v1/shape?handle=1-0", ""), 404, `{"message":"No existing shape found"}`)
	})
}
