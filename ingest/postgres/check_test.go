package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestJudge(t *testing.T) {
	good := facts{version: 150008, walLevel: "logical", role: `a"b`, replication: true}
	for _, c := range []struct {
		change func(*facts)
		check  string
		says   string
	}{
		{func(*facts) {}, "", ""},
		{func(f *facts) { f.version = 140000 }, "", ""},
		{func(f *facts) { f.version = 130012 }, "version", "Postgres 13 is too old"},
		{func(f *facts) { f.standby = true }, "primary", "read replica"},
		{func(f *facts) { f.walLevel = "replica" }, "wal_level", `wal_level is "replica"`},
		{func(f *facts) { f.replication = false }, "role", `ALTER ROLE "a""b" REPLICATION`},
	} {
		f := good
		c.change(&f)
		err := judge(f)
		var e *CheckError
		if errors.As(err, &e) != (c.check != "") || e != nil && (e.Check != c.check || !strings.Contains(e.Text, c.says)) {
			t.Errorf("%+v: got %v, want %s", f, err, c.check)
		}
		if Permanent(err) != (c.check != "") {
			t.Errorf("%+v: permanent = %v", f, Permanent(err))
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		code        string
		replication bool
		check       string
		permanent   bool
		says        string
	}{
		{"28P01", false, "connection", true, "refused the password"},
		{"28000", false, "connection", true, "pg_hba.conf"},
		{"3D000", false, "connection", true, `no database "d"`},
		{"42501", false, "connection", true, "GRANT CONNECT"},
		{"42501", true, "role", true, "ALTER ROLE"},
		{"08P01", true, "connection", true, "pooler"},
		{"53300", true, "connection", false, "max_wal_senders"},
		{"53300", false, "connection", false, "max_connections"},
		{"57P03", false, "", false, "connect to Postgres at h:5"}, // the server is starting up
	} {
		config := &pgconn.Config{Host: "h", Port: 5, Database: "d", User: "u", RuntimeParams: map[string]string{}}
		if c.replication {
			config.RuntimeParams["replication"] = "database"
		}
		cause := &pgconn.PgError{Code: c.code, Message: "the server's words"}
		err := explain(config, fmt.Errorf("wrapped: %w", cause))
		var e *CheckError
		if errors.As(err, &e); e == nil != (c.check == "") || e != nil && e.Check != c.check {
			t.Errorf("%s: got %#v, want check %s", c.code, e, c.check)
		}
		if Permanent(err) != c.permanent || !strings.Contains(err.Error(), c.says) || !errors.Is(err, cause) {
			t.Errorf("%s: got %v (permanent %v)", c.code, err, Permanent(err))
		}
	}
	if err := explain(&pgconn.Config{Host: "h"}, errors.New("refused")); Permanent(err) {
		t.Errorf("a server that is not there for now is permanent: %v", err)
	}
}

func TestSnapshotErrorWords(t *testing.T) {
	for _, c := range []struct {
		err     error
		want    string
		changed bool
		odd     bool
	}{
		{&pgconn.PgError{Code: "55P03"}, textLockTimeout, false, false},
		{&pgconn.PgError{Code: "42501", Message: "permission denied for table items"},
			"Unable to create initial snapshot: permission denied for table items", false, false},
		{&pgconn.PgError{Code: "42P01"}, textChanged, true, false},
		{&pgconn.PgError{Code: "42703"}, textChanged, true, false},
		{ErrNoTable, textChanged, true, false},
		{&pgconn.PgError{Code: "22012", Message: "division by zero"},
			"Unexpected error while creating snapshot: division by zero", false, true},
		{&pgconn.PgError{Code: "5", Message: "odd"}, "Unexpected error while creating snapshot: odd", false, true},
		{&pgconn.PgError{Code: "57P01"}, textUnavailable, false, false},
		{errors.New("connection reset"), textUnavailable, false, false},
		{&CopyFormatError{"x"}, "Unexpected error while creating snapshot: malformed COPY row: x", false, true},
	} {
		var e *SnapshotError
		if err := snapshotError(t.Context(), fmt.Errorf("wrapped: %w", c.err)); !errors.As(err, &e) {
			t.Errorf("%v: got %v", c.err, err)
		} else if e.Text != c.want || e.TableChanged != c.changed || e.Unexpected != c.odd || !errors.Is(e, c.err) {
			t.Errorf("%v: got %+v", c.err, e)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := snapshotError(ended, errors.New("conn closed")); err != context.Canceled {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestOpenRefusesConfiguration(t *testing.T) {
	for _, c := range []Config{
		{URL: "postgres://localhost/x", StreamID: "a-b"},
		{URL: "postgres://localhost/x", StreamID: strings.Repeat("a", 43)},
		{URL: "postgres://u:secret@localhost:port/x"},
		{URL: "postgres://localhost/x", PooledURL: "postgres://u:secret@localhost:port/x"},
	} {
		_, err := Open(t.Context(), c)
		if !Permanent(err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
