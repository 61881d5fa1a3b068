package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/shapeline/shapeline/internal/object"
)

// crashStore passes a named point before and after each write to the bucket, so that crash tests can end the process
// exactly there: SHAPELINE_CRASH_POINTS=1 prints the points, SHAPELINE_CRASH_AT=<point>[:k] kills the process
// at the k-th passing of one.
type crashStore struct {
	object.Store
	print bool
	at    string
	left  atomic.Int64
}

func withCrashPoints(s object.Store, log *slog.Logger) object.Store {
	at, print := os.Getenv("SHAPELINE_CRASH_AT"), os.Getenv("SHAPELINE_CRASH_POINTS") != ""
	if at == "" && !print {
		return s
	}
	log.Warn("crash points are on: this process ends itself for a test", "at", at)
	point, times, _ := strings.Cut(at, ":")
	c := &crashStore{Store: s, print: print, at: point}
	n, err := strconv.ParseInt(times, 10, 64)
	if err != nil {
		n = 1
	}
	c.left.Store(n)
	return c
}

func (c *crashStore) Put(ctx context.Context, key string, body []byte, cond object.Condition) (string, error) {
	kind := crashKind(key)
	c.pass(kind + ".put.before")
	etag, err := c.Store.Put(ctx, key, body, cond)
	c.pass(kind + ".put.after")
	return etag, err
}

func crashKind(key string) string {
	folder, _, _ := strings.Cut(key, "/")
	switch folder {
	case "log":
		return "segment"
	case "shapes":
		return "page"
	case "definitions":
		return "definition"
	case "catalog":
		return "checkpoint"
	}
	return folder // control, requests, and what the self-test writes
}

func (c *crashStore) pass(point string) {
	if c.print {
		fmt.Fprintln(os.Stderr, "crash-point", point)
	}
	if point == c.at && c.left.Add(-1) == 0 {
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		select {} // until it arrives
	}
}
