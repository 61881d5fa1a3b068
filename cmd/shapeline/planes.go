package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/ingest"
	"github.com/shapeline/shapeline/ingest/where"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/serve"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 60 * time.Second // ELECTRIC_TCP_READ_TIMEOUT's default
	headerBytesMax    = 64 << 10         // a request line longer than this is answered with 414 or 431
	drainTimeout      = 10 * time.Second
)

type ingestCmd struct {
	DatabaseURL string `help:"A direct connection to the database, with the REPLICATION privilege." required:"" env:"DATABASE_URL"`
	Listen      string `help:"Address of /v1/health, and of what serve processes ask." default:":3001" env:"SHAPELINE_LISTEN"`
	Secret      string `help:"What serve processes with an --ingest-url must know; without one they are refused." env:"SHAPELINE_SECRET,ELECTRIC_SECRET"`
	Insecure    bool   `help:"Let everybody who reaches the address read the log and make shapes." env:"ELECTRIC_INSECURE"`
	bucketFlags
	databaseFlags
	metricsFlags
}

// Run follows the database until ctx ends.
func (c *ingestCmd) Run(ctx context.Context, log *slog.Logger) error {
	store, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	cfg := c.config(c.DatabaseURL, store, log)
	cfg.Progress, cfg.Feed = newSnapshots(log).report, &feed.Hub{}
	svc := ingest.New(cfg)
	group, ctx := errgroup.WithContext(ctx)
	mux := http.NewServeMux()
	mux.Handle("/", svc)
	if c.Secret != "" || c.Insecure {
		h := feed.Handler{Hub: cfg.Feed, Shapes: svc, Secret: c.Secret, Done: ctx.Done()}
		h.Register(mux)
	}
	group.Go(warm)
	group.Go(func() error { return svc.Run(ctx) })
	group.Go(func() error { return listen(ctx, c.Listen, mux, log, nil) })
	c.start(ctx, group, store, func() bool { return svc.Status().State == ingest.Active }, log)
	return group.Wait()
}

// warm compiles the SQL parser before somebody waits for it, and gives the memory that this took back.
func warm() error {
	where.Warm()
	debug.FreeOSMemory()
	return nil
}

type serveCmd struct {
	Listen   string `help:"Address to listen on." default:":3000" env:"SHAPELINE_LISTEN"`
	Port     int    `hidden:"" env:"ELECTRIC_PORT,PORT"`
	Insecure bool   `help:"Let everybody read everything." env:"ELECTRIC_INSECURE"`

	IngestURL    string `help:"Where ingest listens: changes come from there in milliseconds, and shapes are asked for there. Without it, all goes through the bucket." env:"SHAPELINE_INGEST_URL"`
	IngestSecret string `help:"What ingest wants to hear, if it is not --secret." env:"SHAPELINE_INGEST_SECRET"`
	bucketFlags
	serveFlags
	metricsFlags
}

// Run answers clients until ctx ends.
func (c *serveCmd) Run(ctx context.Context, log *slog.Logger) error {
	if err := checkSecret(c.Secret, c.Insecure); err != nil {
		return err
	}
	store, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	if err := object.SelfTest(ctx, store); err != nil {
		return err
	}
	cfg := c.config(store, nil, log)
	if c.IngestURL != "" {
		client, err := feed.NewClient(c.IngestURL, cmp.Or(c.IngestSecret, c.Secret))
		if err != nil {
			return err
		}
		cfg.Feed, cfg.Ingest = client, client
	}
	srv := serve.New(cfg)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.Run(ctx) })
	group.Go(func() error { return listen(ctx, address(c.Listen, c.Port), srv, log, srv.Drain) })
	c.start(ctx, group, store, func() bool { ready, _, _ := srv.Health(); return ready }, log)
	return group.Wait()
}

// listen serves h on addr until ctx ends, then lets requests finish. drain, if not nil, answers those that wait.
func listen(ctx context.Context, addr string, h http.Handler, log *slog.Logger, drain func()) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	log.Info("listening", "url", publicURL(ln.Addr()))
	return serveOn(ctx, ln, h, drain)
}

func serveOn(ctx context.Context, ln net.Listener, h http.Handler, drain func()) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	if drain != nil {
		drain()
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(limited); err != nil {
		_ = srv.Close() // those who would not finish
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return context.Cause(ctx)
}
