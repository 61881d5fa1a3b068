package serve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory: a listener, and the dialling to it.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

// TestOverTheWire: what the other tests see in a recorder holds for connections of net/http, too.
func TestOverTheWire(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		network := make(pipes)
		server := &http.Server{Handler: p.s}
		served := later(func() error { return server.Serve(network) })
		client := &http.Transport{DialContext: network.dial, DisableCompression: true}
		get := func(ctx context.Context, target string) (*http.Response, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shapeline"+target, nil)
			if err != nil {
				return nil, err
			}
			return client.RoundTrip(r)
		}
		h := p.handle("items")
		resp, err := get(t.Context(), "//v1/%73hape/?table=items&offset=-1")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != snapshotEnd || resp.ContentLength != int64(len(snapshotEnd)) {
			t.Errorf("got %s, %v", body, err)
		}

		// A stream shows its headers and each batch at once.
		stream, err := get(t.Context(), "/v1/shape?"+live+"0_inf&live_sse=true")
		if err != nil {
			t.Fatal(err)
		}
		began, lsn := time.Now(), p.commit(h, 1, false)
		lines := bufio.NewScanner(stream.Body)
		for _, want := range []string{"data: " + entry(lsn, 0, true), "", "data: " + upToDate(lsn+1), ""} {
			if !lines.Scan() || lines.Text() != want {
				t.Fatalf("got %q, want %q", lines.Text(), want)
			}
		}

		// A client that goes away leaves nothing behind.
		ctx, cancel := context.WithCancel(t.Context())
		gone := later(func() error {
			_, err := get(ctx, "/v1/shape?"+live+"1100_0")
			return err
		})
		synctest.Wait()
		if n := p.parked(h); n != 2 {
			t.Errorf("%d parked", n)
		}
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if n := p.parked(h); n != 1 {
			t.Errorf("%d parked", n)
		}

		// Drained, the server can stop at once.
		p.s.Drain()
		if lines.Scan() || lines.Err() != nil || time.Since(began) > time.Second {
			t.Errorf("the stream goes on: %q, %v", lines.Text(), lines.Err())
		}
		client.CloseIdleConnections()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// TestIdle: while nobody asks, the bucket is not read (R7); while somebody waits, one prober reads it for all.
func TestIdle(t *testing.T) {
	bubble(t, Config{LongPollTimeout: time.Hour}, func(t *testing.T, p *plant) {
		for _, table := range []string{"items", "a", "b", "c"} {
			p.handle(table)
		}
		synctest.Wait()
		before := p.store.gets.Load()
		time.Sleep(time.Hour)
		if n := p.store.gets.Load() - before; n != 0 {
			t.Errorf("%d reads in an idle hour", n)
		}
		var rest []<-chan answered
		for range 50 {
			rest = append(rest, later(func() answered { return p.get(live + "0_inf") }))
		}
		time.Sleep(time.Minute)
		before = p.store.gets.Load()
		time.Sleep(time.Minute)
		if n := p.store.gets.Load() - before; n > 4*60 {
			t.Errorf("%d reads a minute for 50 waiters", n)
		}
		p.s.Drain()
		for _, c := range rest {
			if got := <-c; !strings.HasSuffix(got.Body.String(), upToDate(1000)+"]") {
				t.Errorf("got %s", got.Body)
			}
		}
	})
}
