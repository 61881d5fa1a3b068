package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shapeline/shapeline/ingest/postgres"
)

// hold is the body of a process that acquires a stream, says so, and says when it has lost it.
func hold(target string) int {
	stream, dsn, _ := strings.Cut(target, " ")
	ctx := context.Background()
	db, err := postgres.Open(ctx, postgres.Config{URL: dsn, StreamID: stream})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	defer db.Close()
	s, err := db.Acquire(ctx, func(string) {})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if os.Getenv("POSTGRES_TEST_HOLDER_STARTS") != "" {
		if err := s.Start(ctx, 0); err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println("holding")
		for err == nil {
			_, err = s.Receive(ctx)
		}
		fmt.Println("lost", err)
	} else {
		fmt.Println("holding")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until we are woken and told
		fmt.Println("lost", s.Start(ctx, 0))
	}
	_ = s.Close(ctx)
	return 0
}

func TestAcquireCanBeCancelled(t *testing.T) {
	t.Parallel()
	db := open(t, config(t))
	acquire(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := db.Acquire(ctx, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Somebody streams from the slot without having asked for the lock.
func TestSlotInUse(t *testing.T) {
	t.Parallel()
	c := config(t)
	db := open(t, c)
	first := start(t, db)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	intruder, err := pgconn.Connect(t.Context(), c.URL+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	defer intruder.Close(t.Context())
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'",
		"publication_names 'electric_publication_" + c.StreamID + "'"}}
	if err := pglogrepl.StartReplication(t.Context(), intruder, db.SlotName(), 0, options); err != nil {
		t.Fatal(err)
	}

	said := make(chan string, 1)
	s, err := db.Acquire(t.Context(), func(reason string) { said <- reason })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	started := make(chan error)
	go func() { started <- s.Start(t.Context(), 0) }()
	if reason := <-said; !strings.Contains(reason, "is in use by server process") ||
		!strings.Contains(reason, fmt.Sprint(intruder.PID())) {
		t.Errorf("reason %q", reason)
	}
	if err := intruder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Error(err)
	}
}

func TestPublicationAndSlotBelongTogether(t *testing.T) {
	t.Parallel()
	c := config(t)
	db := open(t, c)
	conn := connect(t, c.URL)
	name := "electric_publication_" + c.StreamID

	s := acquire(t, db) // and crash before Start: nothing must look as if it had a past
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = start(t, db)
	if !s.SlotNew {
		t.Error("the slot is not new though nobody has ever started")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "DROP PUBLICATION "+name)
	s = start(t, db)
	if !s.SlotNew || value(t, conn, "SELECT count(*)::text FROM pg_publication") != "1" {
		t.Error("changes went by without a publication, and the slot is built on")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "ALTER PUBLICATION "+name+" SET (publish = 'insert, update')")
	var e *postgres.CheckError
	if _, err := db.Acquire(t.Context(), quiet); !errors.As(err, &e) || e.Check != "publication" {
		t.Errorf("a publication of inserts and updates alone: %v", err)
	}
	run(t, conn, "DROP PUBLICATION "+name)
	c.ManualPublishing = true
	if _, err := open(t, c).Acquire(t.Context(), quiet); !errors.As(err, &e) || e.Check != "publication" {
		t.Errorf("no publication, by hand: %v", err)
	}
}

// Creating a slot waits for transactions, and says for which.
func TestNewSlotExplainsItsWait(t *testing.T) {
	t.Parallel()
	c := config(t)
	db := open(t, c)
	busy := connect(t, c.URL)
	run(t, busy, "BEGIN")
	run(t, busy, "CREATE TABLE items (id int)")
	said := make(chan string, 8)
	s, err := db.Acquire(t.Context(), func(reason string) { said <- reason })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	started := make(chan error)
	go func() { started <- s.Start(t.Context(), 0) }()
	if reason := <-said; !strings.Contains(reason, "waits for transactions") {
		t.Errorf("reason %q", reason)
	}
	run(t, busy, "COMMIT")
	if err := <-started; err != nil {
		t.Error(err)
	}
}
