package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"syscall"
	"time"
)

const (
	g19Poll = 5 * time.Millisecond
	g19Max  = 2 * time.Minute
)

// runG19 kills ingest, which has all the shapes, starts it again at once, and takes the time until a change that was
// committed meanwhile is with a client. The shapes must be the same ones, and nothing may come twice.
func runG19(ctx context.Context, s settings) (measured, error) {
	m, err := newMachineOf(ctx, layout{apart: true, feed: true}, referenceTable)
	if err != nil {
		return measured{}, err
	}
	defer m.close()
	g := &g6{machine: m, settings: s}
	if err := g.createShapes(ctx); err != nil {
		return measured{}, err
	}
	var took sample
	for turn := range s.repeats {
		ms, err := m.restart(ctx, turn)
		if err != nil {
			return measured{}, fmt.Errorf("turn %d: %w", turn+1, err)
		}
		took = append(took, ms)
	}
	return measured{
		figure: fmt.Sprintf("%.2f s at %d shapes", took.median()/1000, s.shapes),
		lines: []string{fmt.Sprintf("ms from SIGKILL of ingest, which is started again at once, to a change committed meanwhile being read: %s; "+
			"same handle, the row once", took.spread("%.0f"))},
	}, nil
}

// restart is one turn: milliseconds.
func (m *machine) restart(ctx context.Context, turn int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, g19Max)
	defer cancel()
	before, err := m.upToDate(ctx)
	if err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := m.ingest.Process.Signal(syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill ingest: %w", err)
	}
	_ = m.ingest.Wait() // it was killed
	title := fmt.Sprintf("after kill %d", turn)
	_, err = m.conn.Exec(ctx, "INSERT INTO reference VALUES ($1, 0, 'open', $2, 1, '{}', '2024-01-01Z')", 1_000_000+turn, title)
	if err != nil {
		return 0, fmt.Errorf("insert: %w", err)
	}
	old := m.ingest
	m.ingest = exec.Command(old.Path, old.Args[1:]...)
	m.ingest.Env, m.ingest.Stdout, m.ingest.Stderr, m.ingest.SysProcAttr = old.Env, old.Stdout, old.Stderr, old.SysProcAttr
	if err := m.ingest.Start(); err != nil {
		m.ingest = nil
		return 0, fmt.Errorf("start ingest again: %w", err)
	}
	for {
		r, err := get(ctx, http.MethodGet, m.url+"/v1/shape?"+before.Encode())
		if err != nil {
			return 0, err
		}
		switch n := bytes.Count(r.body, []byte(title)); {
		case r.status == http.StatusServiceUnavailable || r.status == http.StatusOK && n == 0:
		case r.status != http.StatusOK || n != 1:
			return 0, fmt.Errorf("status %d, the row %d times: %.300s", r.status, n, r.body)
		default:
			return milliseconds(time.Since(killed)), nil
		}
		select {
		case <-time.After(g19Poll):
		case <-ctx.Done():
			return 0, errors.New("the change never came")
		}
	}
}

// upToDate reads the first shape to its end, and returns the request that goes on from there.
func (m *machine) upToDate(ctx context.Context) (url.Values, error) {
	q := shapeRequest(tenant(0))
	for {
		r, err := get(ctx, http.MethodGet, m.url+"/v1/shape?"+q.Encode())
		if err != nil {
			return nil, err
		}
		if r.status != http.StatusOK {
			return nil, fmt.Errorf("read shape 0: status %d: %.300s", r.status, r.body)
		}
		q.Set("handle", r.header.Get("electric-handle"))
		q.Set("offset", r.header.Get("electric-offset"))
		if r.header.Values("electric-up-to-date") != nil {
			return q, nil
		}
	}
}
