package serve

import (
	"context"
	"errors"
	"time"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	requestTimeout   = 30 * time.Second
	requestPollMax   = 100 * time.Millisecond
	requestRetry     = 5 // seconds
	requestNoAnswer  = "Nobody creates shapes at the moment: ingest is not running or cannot keep up. Please retry."
	requestPollStart = time.Millisecond // where the store names no ProbeInterval
)

// reachable asks ingest by HTTP, and through the bucket while it cannot be reached.
type reachable struct{ ingest, bucket Opener }

// Open implements Opener.
func (r reachable) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	h, err := r.ingest.Open(ctx, d)
	if errors.Is(err, feed.ErrUnreachable) {
		return r.bucket.Open(ctx, d)
	}
	return h, err
}

// Drop implements Opener.
func (r reachable) Drop(ctx context.Context, h shape.Handle) error {
	err := r.ingest.Drop(ctx, h)
	if errors.Is(err, feed.ErrUnreachable) {
		return r.bucket.Drop(ctx, h)
	}
	return err
}

// Requester is an Opener that shares nothing with ingest but the bucket: it leaves a request object and looks for
// what becomes of it, and does nothing at all while nobody asks.
type Requester struct {
	Store object.Store

	// Known reports whether the log, up to what is in the bucket now, has the handle's shape.
	Known func(ctx context.Context, h shape.Handle) (bool, error)
}

// Open implements Opener. It gives up after 30 s with a Refusal of status 503.
func (r *Requester) Open(ctx context.Context, d shape.Definition) (shape.Handle, error) {
	request := catalog.Request{Open: &d, At: time.Now().UTC()}
	var h shape.Handle
	err := r.ask(ctx, request, func(ctx context.Context) (bool, error) {
		var err error
		h, err = catalog.GetPointer(ctx, r.Store, d)
		if errors.Is(err, object.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, storeError{err}
		}
		return r.Known(ctx, h)
	})
	return h, err
}

// Drop implements Opener. It gives up after 30 s with a Refusal of status 503.
func (r *Requester) Drop(ctx context.Context, h shape.Handle) error {
	request := catalog.Request{Drop: &h, At: time.Now().UTC()}
	return r.ask(ctx, request, func(ctx context.Context) (bool, error) {
		known, err := r.Known(ctx, h)
		return !known, err
	})
}

// ask leaves the request and returns once it is done, or with the refusal of it.
func (r *Requester) ask(ctx context.Context, request catalog.Request, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := r.asked(ctx, request, done)
	if errors.Is(err, context.DeadlineExceeded) {
		return shape.Unavailable(requestRetry, requestNoAnswer)
	}
	return err
}

func (r *Requester) asked(
	ctx context.Context, request catalog.Request, done func(context.Context) (bool, error),
) error {
	// An answer that lies there already was for somebody who left: ask anew.
	if _, err := r.take(ctx, request.Key()); err != nil && !errors.As(err, new(*shape.Refusal)) {
		return err
	}
	pause := max(r.Store.Caps().ProbeInterval, requestPollStart)
	for open := false; ; {
		if !open {
			if err := catalog.PutRequest(ctx, r.Store, request); err != nil {
				return storeError{err}
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, requestPollMax)

		// In this order: a request that is gone was granted before done looks, or its answer was taken by another
		// who asked for the same; then it has to be put again.
		var err error
		if open, err = r.take(ctx, request.Key()); err != nil {
			return err
		}
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
	}
}

// take reports whether the request under key is still open. If it was refused, take deletes it and returns the
// refusal.
func (r *Requester) take(ctx context.Context, key string) (open bool, err error) {
	request, err := catalog.GetRequest(ctx, r.Store, key)
	switch {
	case errors.Is(err, object.ErrNotFound):
		return false, nil
	case err != nil:
		return false, storeError{err}
	case request.Answer == nil:
		return true, nil
	}
	if err := r.Store.Delete(ctx, key); err != nil {
		return false, storeError{err}
	}
	return false, request.Answer
}
