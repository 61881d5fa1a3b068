package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	streamBuffer  = 64 << 10
	peerSlot      = "shapeline_bench"
	peerReadyPoll = 10 * time.Millisecond
	peerReadyMax  = 10 * time.Second
)

// seenLSN finds how far an up-to-date event says that the stream is.
var seenLSN = regexp.MustCompile(`"global_last_seen_lsn":"(\d+)"`)

// watch is the live client of shape k: the rows so far, then events until ctx is done.
func (g *g6) watch(ctx context.Context, k int) error {
	q := shapeRequest(tenant(k))
	if err := g.follow(ctx, http.MethodGet, q, func(*response) error { return nil }); err != nil {
		return err
	}
	handle, offset, cursor := q.Get("handle"), q.Get("offset"), ""
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			g.url+"/v1/shape?"+watchRequest(k, handle, offset, cursor).Encode(), nil)
		if err != nil {
			return fmt.Errorf("make a request: %w", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("stream shape %d: %w", k, err)
		}
		if resp.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
			resp.Body.Close()
			return fmt.Errorf("stream shape %d: status %d: %s", k, resp.StatusCode, body)
		}
		cursor = resp.Header.Get("electric-cursor")
		offset, err = g.events(resp.Body, offset)
		resp.Body.Close()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("stream shape %d: %w", k, err)
		}
	}
	return nil
}

// events reads a stream to its end and returns where the next one begins.
func (g *g6) events(body io.Reader, offset string) (string, error) {
	r := bufio.NewReaderSize(body, streamBuffer)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return offset, nil
		}
		if err != nil {
			return offset, fmt.Errorf("read an event: %w", err)
		}
		g.arrived(line)
		if bytes.Contains(line, []byte(`"up-to-date"`)) {
			if m := seenLSN.FindSubmatch(line); m != nil {
				offset = string(m[1]) + "_0"
			}
		}
	}
}

// recvlogicalPath finds the peer beside the server's binaries.
func recvlogicalPath() (string, error) {
	if p, err := exec.LookPath("pg_recvlogical"); err == nil {
		return p, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_recvlogical")
	if len(found) == 0 {
		return "", fmt.Errorf("%w: pg_recvlogical is not installed", errCannotRun)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// peerTurn runs the load with pg_recvlogical reading the same publication, and the server stopped.
func (g *g6) peerTurn(ctx context.Context, path string) error {
	if err := g.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	err := g.peerLoad(ctx, path)
	if cerr := g.signal(syscall.SIGCONT); cerr != nil {
		return fmt.Errorf("let the server go on: %w", cerr)
	}
	if err != nil {
		return err
	}
	// What it has missed it must not catch up on in its own turn. Postgres has hung up on it meanwhile.
	if err := g.drain(ctx, 0, int(g.next.Load())); err != nil {
		return err
	}
	if _, missing := g.latencies(0, int(g.next.Load()), 0); missing > 0 {
		return fmt.Errorf("after it was stopped, the server has not caught up within %s: %d changes are missing",
			g6Drain, missing)
	}
	return nil
}

// dropPeerSlot waits until the peer's walsender has noticed that it is alone, and drops its slot.
func (g *g6) dropPeerSlot(ctx context.Context) error {
	deadline := time.Now().Add(peerReadyMax)
	for {
		_, err := g.conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", peerSlot)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("drop the slot: %w", err)
		}
		time.Sleep(peerReadyPoll)
	}
}

func (g *g6) peerLoad(ctx context.Context, path string) error {
	var publication string
	if err := g.conn.QueryRow(ctx, "SELECT pubname FROM pg_publication").Scan(&publication); err != nil {
		return fmt.Errorf("find the server's publication: %w", err)
	}
	if _, err := g.conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", peerSlot); err != nil {
		return fmt.Errorf("make a slot: %w", err)
	}
	cmd := exec.Command(path, "-d", g.pg.URL(), "--slot", peerSlot, "--start", "--no-loop", "-f", "-",
		"-o", "proto_version=1", "-o", "publication_names="+publication)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start pg_recvlogical: %w", err)
	}
	// The peer's arrivals are kept apart: the same rows reach the server's clients later.
	peer := newArrivals(len(g.sent))
	peer.base = g.base
	read := make(chan struct{})
	go func() { // ends with the pipe, and is waited for below
		defer close(read)
		buf, kept := make([]byte, streamBuffer), 0
		for {
			n, err := out.Read(buf[kept:])
			if n > 0 {
				kept = copy(buf, peer.arrived(buf[:kept+n]))
			}
			if err != nil {
				return
			}
		}
	}()
	loadErr := g.peerMeasure(ctx, peer)
	_ = cmd.Process.Signal(syscall.SIGINT) // it ends in order
	<-read
	_ = cmd.Wait() // with a status for the interrupt
	if err := errors.Join(loadErr, g.dropPeerSlot(ctx)); err != nil {
		return fmt.Errorf("%w; it said: %s", err, said.String())
	}
	return nil
}

func (g *g6) peerMeasure(ctx context.Context, peer *arrivals) error {
	deadline := time.Now().Add(peerReadyMax)
	for active := false; !active; time.Sleep(peerReadyPoll) {
		err := g.conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", peerSlot).Scan(&active)
		if err != nil {
			return fmt.Errorf("look at the slot: %w", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pg_recvlogical has not begun within %s", peerReadyMax)
		}
	}
	first := int(g.next.Load())
	_, postgres := g.cpu()
	last, since, _, err := g.load(ctx)
	if err != nil {
		return err
	}
	_, postgresAfter := g.cpu()
	for n := first; n < last; n++ {
		peer.sent[n].Store(g.sent[n].Load())
		peer.watched[n].Store(g.watched[n].Load())
	}
	for deadline := time.Now().Add(g6Drain); ; time.Sleep(g6DrainPoll) {
		ms, missing := peer.latencies(first, last, since)
		if missing > 0 && time.Now().Before(deadline) {
			continue
		}
		if missing > 0 || len(ms) == 0 {
			return fmt.Errorf("%d of its changes never came", missing)
		}
		g.peerP50, g.peerP99 = append(g.peerP50, ms.percentile(50)), append(g.peerP99, ms.percentile(99))
		g.peerCPU = append(g.peerCPU, (postgresAfter-postgres)/(float64(last-first)/1000))
		return nil
	}
}
