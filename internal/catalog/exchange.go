package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// Pointer is what definitions/<hash> holds: the shape that answers a definition.
type Pointer struct {
	Definition shape.Definition `json:"definition"`
	Handle     shape.Handle     `json:"handle"`
}

// DefinitionsPrefix is where definitions lie.
const DefinitionsPrefix = "definitions/"

func definitionKey(hash string) string { return DefinitionsPrefix + hash }

// GetPointer returns the handle for a definition, which may be that of a shape dropped since. The error is
// object.ErrNotFound if nobody has asked for it yet.
func GetPointer(ctx context.Context, store object.Reader, d shape.Definition) (shape.Handle, error) {
	o, err := store.Get(ctx, definitionKey(d.Hash()), object.Range{})
	if err != nil {
		return shape.Handle{}, fmt.Errorf("get definition: %w", err)
	}
	var p Pointer
	if err := json.Unmarshal(o.Body, &p); err != nil {
		return shape.Handle{}, fmt.Errorf("definition %s: %w", d.Hash(), err)
	}
	return p.Handle, nil
}

// PutPointer makes h the answer to d, whatever it was before. Only the active writer of the log may call it.
func PutPointer(ctx context.Context, store object.Store, d shape.Definition, h shape.Handle) error {
	b, err := segment.SealJSON(Pointer{d, h})
	if err != nil {
		return fmt.Errorf("encode definition: %w", err)
	}
	key := definitionKey(d.Hash())
	for {
		cond := object.IfAbsent()
		old, err := store.Get(ctx, key, object.Range{})
		switch {
		case err == nil && string(old.Body) == string(b):
			return nil
		case err == nil:
			cond = object.IfMatch(old.ETag)
		case !errors.Is(err, object.ErrNotFound):
			return fmt.Errorf("get definition: %w", err)
		}
		_, err = store.Put(ctx, key, b, cond)
		if err == nil {
			return nil
		}
		if !errors.Is(err, object.ErrExists) && !errors.Is(err, object.ErrChanged) {
			return fmt.Errorf("put definition: %w", err)
		}
	}
}

// RequestsPrefix is where requests lie.
const RequestsPrefix = "requests/"

// Request is what requests/<hash> holds: something that a plane without a connection to ingest asks of it. Ingest
// answers a refused one in place; one that succeeded it deletes, because the log and definitions/ tell the rest.
type Request struct {
	Open   *shape.Definition `json:"open,omitempty"` // open a shape
	Drop   *shape.Handle     `json:"drop,omitempty"` // or drop one
	At     time.Time         `json:"at"`             // by the asker's clock, for people
	Answer *shape.Refusal    `json:"answer,omitempty"`
}

// Key is the object key of the request: equal for requests that ask for the same.
func (r Request) Key() string {
	if r.Drop != nil {
		return RequestsPrefix + "drop-" + r.Drop.String()
	}
	return RequestsPrefix + r.Open.Hash()
}

// PutRequest leaves a request for ingest, unless the same one is there already.
func PutRequest(ctx context.Context, store object.Store, r Request) error {
	b, err := segment.SealJSON(r)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if _, err := store.Put(ctx, r.Key(), b, object.IfAbsent()); err != nil && !errors.Is(err, object.ErrExists) {
		return fmt.Errorf("put request: %w", err)
	}
	return nil
}

// GetRequest returns the request under key, or object.ErrNotFound once it has been granted.
func GetRequest(ctx context.Context, store object.Reader, key string) (Request, error) {
	o, err := store.Get(ctx, key, object.Range{})
	if err != nil {
		return Request{}, fmt.Errorf("get request: %w", err)
	}
	var r Request
	if err := json.Unmarshal(o.Body, &r); err != nil || (r.Open == nil) == (r.Drop == nil) {
		return Request{}, fmt.Errorf("request %s is not one: delete the object (%w)", key, errors.Join(err))
	}
	return r, nil
}

// Refuse answers a request in place.
func (r Request) Refuse(ctx context.Context, store object.Store, why *shape.Refusal) error {
	r.Answer = why
	b, err := segment.SealJSON(r)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if _, err := store.Put(ctx, r.Key(), b, object.Always()); err != nil {
		return fmt.Errorf("put answer: %w", err)
	}
	return nil
}
