package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/ingest"
	"github.com/shapeline/shapeline/internal/feed"
	"github.com/shapeline/shapeline/internal/localpg"
	"github.com/shapeline/shapeline/serve"
)

type devCmd struct {
	DatabaseURL string `help:"The database to follow; without it a throwaway Postgres with a sample table is started." env:"DATABASE_URL"`
	Listen      string `help:"Address to listen on." default:"127.0.0.1:3000" env:"SHAPELINE_LISTEN"`
	Port        int    `hidden:"" env:"ELECTRIC_PORT"`
	bucketFlags
	databaseFlags
	serveFlags
	metricsFlags
}

// Run runs all planes until ctx ends.
func (c *devCmd) Run(ctx context.Context, log *slog.Logger) error {
	addr := c.Listen
	if c.Port != 0 {
		addr = net.JoinHostPort("127.0.0.1", fmt.Sprint(c.Port))
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (choose another address with --listen)", addr, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	err = c.begin(ctx, group, ln, log)
	if err != nil {
		group.Go(func() error { return err }) // ends what has started
		_ = ln.Close()
	}
	return errors.Join(err, group.Wait())
}

func (c *devCmd) begin(ctx context.Context, group *errgroup.Group, ln net.Listener, log *slog.Logger) error {
	group.Go(warm)
	store, err := c.open(ctx, log)
	if err != nil {
		return err
	}
	table, databaseURL := "", c.DatabaseURL
	if databaseURL == "" {
		table = "heartbeats"
		if databaseURL, err = c.throwaway(ctx, group); err != nil {
			return err
		}
	}
	cfg := c.databaseFlags.config(databaseURL, store, log)
	cfg.Progress = newSnapshots(log).report
	cfg.Feed = &feed.Hub{}
	svc := ingest.New(cfg)
	serveCfg := c.serveFlags.config(store, svc, log)
	serveCfg.Feed = cfg.Feed
	serveCfg.Health = func() (ready, waiting bool, reason string) {
		st := svc.Status()
		return st.State == ingest.Active, st.State == ingest.Waiting, st.Reason
	}
	srv := serve.New(serveCfg)
	group.Go(func() error { return svc.Run(ctx) })
	group.Go(func() error { return srv.Run(ctx) })
	group.Go(func() error { return serveOn(ctx, ln, srv, srv.Drain) })
	c.start(ctx, group, store, func() bool { return svc.Status().State == ingest.Active }, log)
	group.Go(func() error { return greet(ctx, svc, publicURL(ln.Addr()), table) })
	return nil
}

// greet prints what to try, once it would work.
func greet(ctx context.Context, svc *ingest.Service, url, table string) error {
	for svc.Status().State != ingest.Active {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	if table == "" {
		table = "YOUR_TABLE"
	}
	fmt.Fprintf(os.Stdout, "\nShapeline is ready. Try:\n\n    curl -s '%[1]s/v1/shape?table=%[2]s&offset=-1'\n\n"+
		"Clients of Electric sync from %[1]s/v1/shape. Ctrl-C ends everything.\n\n", url, table)
	return nil
}

// throwaway starts a Postgres with a sample table that changes once a second, and ends it with group's context.
func (c *devCmd) throwaway(ctx context.Context, group *errgroup.Group) (string, error) {
	pg, err := localpg.Start(ctx, localpg.Options{})
	if err != nil {
		return "", err
	}
	ready := make(chan error, 1)
	group.Go(func() error {
		err := beat(ctx, pg.URL(), ready)
		return errors.Join(err, pg.Stop())
	})
	return pg.URL(), <-ready
}

// beat makes the sample table, says so, and changes a row of it each second.
func beat(ctx context.Context, url string, ready chan<- error) error {
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		defer conn.Close(context.WithoutCancel(ctx))
		_, err = conn.Exec(ctx, `CREATE TABLE heartbeats (id int PRIMARY KEY, name text NOT NULL, beats int NOT NULL, at timestamptz NOT NULL);
			INSERT INTO heartbeats SELECT i, (ARRAY['ada', 'grace', 'edsger'])[i], 0, now() FROM generate_series(1, 3) i`)
	}
	ready <- err
	if err != nil {
		return fmt.Errorf("make the sample table: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, err := conn.Exec(ctx, "UPDATE heartbeats SET beats = beats + 1, at = now() WHERE id = $1", n%3+1)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("change the sample table: %w", err)
		}
	}
}
