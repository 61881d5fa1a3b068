package pgoutput_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shapeline/shapeline/ingest/pgoutput"
	"github.com/shapeline/shapeline/internal/pg"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// stream returns messages that Postgres 15 sent, one a line in testdata. They are what these statements made:
//
//	CREATE TYPE mood AS ENUM ('sad','happy');
//	CREATE TABLE items (id bigint PRIMARY KEY, tenant_id int, status text, mood mood, price numeric(10,2),
//		tags text[], at timestamptz, big text);
//	ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
//	ALTER TABLE items REPLICA IDENTITY FULL;
//	CREATE TABLE keyed (id int PRIMARY KEY, v text);
//	INSERT INTO items VALUES (1, 7, 'open', 'happy', 12.50, '{a,"b c"}', '2026-01-02 03:04:05+00', repeat('x', 2100));
//	INSERT INTO items (id, status) VALUES (2, '');
//	UPDATE items SET status = 'done' WHERE id = 1;
//	UPDATE items SET id = 3 WHERE id = 2;
//	DELETE FROM items WHERE id = 3;
//	INSERT INTO keyed VALUES (1, 'a');
//	UPDATE keyed SET v = 'b';
//	UPDATE keyed SET id = 2;
//	DELETE FROM keyed;
//	ALTER TABLE items ADD extra int;
//	INSERT INTO items (id) VALUES (9);
//	TRUNCATE items, keyed;
func stream(t testing.TB) [][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/stream.hex")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func TestDecodeStream(t *testing.T) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	var got bytes.Buffer
	for _, b := range stream(t) {
		if err := d.Decode(b, &m); err != nil {
			fmt.Fprintf(&got, "%s: error: %v\n", m.Kind, err)
			continue
		}
		fmt.Fprintln(&got, describe(&m))
	}
	const golden = "testdata/stream.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got:\n%s\nwant:\n%s", got.Bytes(), want)
	}
}

// describe prints m on one line, long values by their length.
func describe(m *pgoutput.Message) string {
	switch m.Kind {
	case pgoutput.Begin:
		return fmt.Sprintf("begin %d at %s, %s", m.Txn.XID, m.Txn.Commit, m.Time.Format(time.RFC3339Nano))
	case pgoutput.Commit:
		return fmt.Sprintf("commit %s to %s, %s", m.Txn.Commit, m.Txn.End, m.Time.Format(time.RFC3339Nano))
	case pgoutput.Relation:
		s := fmt.Sprintf("relation %d %s.%s %s", m.Relation.OID, m.Relation.Schema, m.Relation.Name,
			m.Relation.ReplicaIdentity)
		for _, c := range m.Relation.Columns {
			s += fmt.Sprintf(" %s:%d(%d)", c.Name, c.Type, c.Typmod)
		}
		return s
	case pgoutput.Insert, pgoutput.Update, pgoutput.Delete:
		return fmt.Sprintf("%s %s old=%s new=%s", m.Change.Op, m.Change.Relation.Name, values(m.Change.Old),
			values(m.Change.New))
	case pgoutput.Truncate:
		s := "truncate"
		for _, r := range m.Truncated {
			s += " " + r.Name
		}
		return s
	}
	return m.Kind.String()
}

func values(row pg.Row) string {
	if row == nil {
		return "none"
	}
	var s []string
	for _, v := range row {
		switch {
		case v == nil:
			s = append(s, "NULL")
		case len(v) > 30:
			s = append(s, fmt.Sprintf("%c*%d", v[0], len(v)))
		default:
			s = append(s, fmt.Sprintf("%q", v))
		}
	}
	return "(" + strings.Join(s, " ") + ")"
}

func TestUnchangedToastIsTheOldValue(t *testing.T) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	for _, b := range stream(t) {
		if err := d.Decode(b, &m); err != nil {
			t.Fatal(err)
		}
		if m.Kind == pgoutput.Update {
			break
		}
	}
	c, big := m.Change, len(m.Change.New)-1
	if len(c.New[big]) != 2100 || &c.New[big][0] != &c.Old[big][0] {
		t.Errorf("new value of %d bytes is not the old one of %d", len(c.New[big]), len(c.Old[big]))
	}
	for _, v := range slices.Concat(c.Old, c.New) {
		if cap(v) != len(v) {
			t.Errorf("value %.20q can be appended to in place", v)
		}
	}
}

func TestReplicaIdentity(t *testing.T) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	var refused []pg.Op
	for _, b := range stream(t) {
		var e *pgoutput.ReplicaIdentityError
		if err := d.Decode(b, &m); errors.As(err, &e) {
			if e.Relation.Name != "keyed" {
				t.Errorf("error names table %q", e.Relation.Name)
			}
			refused = append(refused, e.Op)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if want := []pg.Op{pg.Update, pg.Update, pg.Delete}; !slices.Equal(refused, want) {
		t.Errorf("refused %v, want %v", refused, want)
	}
}

func TestRelationIsFreshOnlyWhenItDiffers(t *testing.T) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	base := relation("public", 'f', "\x00id\x00\x00\x00\x00\x14\xff\xff\xff\xff")
	decode(t, &d, base, &m)
	first := m.Relation
	for _, c := range []struct {
		name  string
		b     []byte
		fresh bool
	}{
		{"same", base, false},
		{"key flag only", relation("public", 'f', "\x01id\x00\x00\x00\x00\x14\xff\xff\xff\xff"), false},
		{"schema", relation("other", 'f', "\x00id\x00\x00\x00\x00\x14\xff\xff\xff\xff"), true},
		{"identity", relation("public", 'd', "\x00id\x00\x00\x00\x00\x14\xff\xff\xff\xff"), true},
		{"column name", relation("public", 'f', "\x00ie\x00\x00\x00\x00\x14\xff\xff\xff\xff"), true},
		{"type", relation("public", 'f', "\x00id\x00\x00\x00\x00\x17\xff\xff\xff\xff"), true},
		{"typmod", relation("public", 'f', "\x00id\x00\x00\x00\x00\x14\x00\x00\x00\x05"), true},
		{"no column", relation("public", 'f'), true},
	} {
		decode(t, &d, base, &m)
		known := m.Relation
		decode(t, &d, c.b, &m)
		if got := m.Relation != known; got != c.fresh {
			t.Errorf("%s: fresh = %v", c.name, got)
		}
	}
	if len(first.Columns) != 1 || first.Schema != "public" {
		t.Errorf("the first relation was written to: %+v", first)
	}
}

// relation builds a relation message for table t with oid 9; each column is its flags, name, type and typmod.
func relation(schema string, identity byte, columns ...string) []byte {
	b := append([]byte("R\x00\x00\x00\x09"), schema...)
	b = append(b, 0, 't', 0, identity, 0, byte(len(columns)))
	for _, c := range columns {
		b = append(b, c...)
	}
	return b
}

func decode(t testing.TB, d *pgoutput.Decoder, b []byte, m *pgoutput.Message) {
	t.Helper()
	if err := d.Decode(b, m); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
}

// known is a decoder that has seen table 9 with two columns.
func known(t testing.TB) *pgoutput.Decoder {
	var d pgoutput.Decoder
	var m pgoutput.Message
	decode(t, &d, relation("public", 'f', "\x00a\x00\x00\x00\x00\x19\xff\xff\xff\xff",
		"\x00b\x00\x00\x00\x00\x19\xff\xff\xff\xff"), &m)
	return &d
}

func TestDecodeRows(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"I\x00\x00\x00\x09N\x00\x02nn", "insert t old=none new=(NULL NULL)"},
		{"I\x00\x00\x00\x09N\x00\x02t\x00\x00\x00\x00n", `insert t old=none new=("" NULL)`},
		{"D\x00\x00\x00\x09O\x00\x02t\x00\x00\x00\x01xn", `delete t old=("x" NULL) new=none`},
		{"U\x00\x00\x00\x09O\x00\x02t\x00\x00\x00\x01xnN\x00\x02ut\x00\x00\x00\x00",
			`update t old=("x" NULL) new=("x" "")`},
		{"T\x00\x00\x00\x02\x03\x00\x00\x00\x09\x00\x00\x00\x09", "truncate t t"},
		{"T\x00\x00\x00\x00\x00", "truncate"},
		{"O\x00\x00\x00\x00\x00\x00\x00\x01name\x00", "origin"},
		{"Y\x00\x00\x00\x01public\x00mood\x00", "type"},
		{"M\x00\x00\x00\x00\x00\x00\x00\x00\x01prefix\x00\x00\x00\x00\x02hi", "custom"},
	} {
		var m pgoutput.Message
		decode(t, known(t), []byte(c.in), &m)
		if got := describe(&m); got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range nasty {
		var m pgoutput.Message
		var e *pgoutput.MalformedError
		if err := known(t).Decode([]byte(in), &m); !errors.As(err, &e) {
			t.Errorf("%q: got %v and %s", in, err, describe(&m))
		} else if m.Change.New != nil || m.Change.Old != nil || m.Relation != nil {
			t.Errorf("%q: an error, and a message: %+v", in, m)
		}
	}
	for _, whole := range stream(t) { // every message, cut short everywhere
		for n := range min(len(whole), 200) {
			d := known(t)
			var m pgoutput.Message
			if err := d.Decode(whole[:n], &m); err == nil {
				t.Errorf("%x cut to %d bytes is accepted", whole[:min(20, n)], n)
			}
		}
	}
}

// nasty are messages that a decoder which knows table 9, of two columns, must refuse.
var nasty = []string{
	"", "Z", "\x00", "B", "S\x00", // empty, unknown, too short, a stream message of version 2
	"I\x00\x00\x00\x08N\x00\x02nn",                              // unknown relation
	"I\x00\x00\x00\x09K\x00\x02nn",                              // an insert with a key
	"I\x00\x00\x00\x09N\x00\x03nnn",                             // too many columns
	"I\x00\x00\x00\x09N\x00\x01n",                               // too few
	"I\x00\x00\x00\x09N\xff\xffnn",                              // as many as there can be
	"I\x00\x00\x00\x09N\x00\x02nnn",                             // trailing byte
	"I\x00\x00\x00\x09N\x00\x02nb\x00\x00\x00\x01x",             // binary
	"I\x00\x00\x00\x09N\x00\x02nu",                              // unchanged, but of what
	"I\x00\x00\x00\x09N\x00\x02nx",                              // unknown form
	"I\x00\x00\x00\x09N\x00\x02nt\xff\xff\xff\xff",              // length -1
	"I\x00\x00\x00\x09N\x00\x02nt\x7f\xff\xff\xffx",             // huge length
	"I\x00\x00\x00\x09N\x00\x02nt\x00\x00\x00\x02x",             // one byte too long
	"D\x00\x00\x00\x09O\x00\x02nu",                              // an old row holds everything
	"D\x00\x00\x00\x09N\x00\x02nn",                              // a delete with a new row
	"U\x00\x00\x00\x09O\x00\x02nn",                              // an update without a new row
	"U\x00\x00\x00\x09O\x00\x02nnO\x00\x02nn",                   // two old rows
	"T\xff\xff\xff\xff\x00",                                     // as many relations as there can be
	"T\x00\x00\x00\x02\x00\x00\x00\x00\x09",                     // one relation of two
	"T\x00\x00\x00\x01\x00\x00\x00\x00\x08",                     // unknown relation
	"R\x00\x00\x00\x09public",                                   // schema without an end
	"R\x00\x00\x00\x09public\x00t",                              // name without an end
	"R\x00\x00\x00\x09public\x00t\x00f\xff\xff",                 // as many columns as there can be
	"R\x00\x00\x00\x09p\x00t\x00f\x00\x01\x00longer name than",  // column without an end
	"R\x00\x00\x00\x09p\x00t\x00f\x00\x01\x00name\x00\x00\x00",  // column without a type
	"C\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00", // flags
	"Y\x00\x00\x00\x01public\x00mood",
	"M\x00\x00\x00\x00\x00\x00\x00\x00\x01prefix\x00\xff\xff\xff\xff",
	"M\x00\x00\x00\x00\x00\x00\x00\x00\x01prefix\x00\x00",
}
