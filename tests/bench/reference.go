package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The reference row: 7 columns, about 160 bytes of COPY text.
const (
	referenceTable = `CREATE TABLE reference (id bigint PRIMARY KEY, tenant_id int, status text, title text, price numeric,
		tags text[], updated_at timestamptz)`
	referenceRows = `INSERT INTO reference SELECT i, i %% 10000, (ARRAY['open','done','in progress'])[1 + i %% 3],
		'The title of row ' || i || ', ' || md5(i::text) || left(md5((i + 1)::text), 22), (i %% 100000) / 100.0,
		ARRAY['tag' || i %% 10, 'label ' || i %% 7], '2024-01-01Z'::timestamptz + i * interval '1.5 s'
		FROM generate_series(1, %d) i`
)

// shapeRequest is the query of the first request for a shape.
func shapeRequest(where string) url.Values {
	q := url.Values{"table": {"reference"}, "offset": {"-1"}}
	if where != "" {
		q.Set("where", where)
	}
	return q
}

// follow requests a shape from q's offset on until an answer is up to date, and gives each answer to take.
func (m *machine) follow(ctx context.Context, method string, q url.Values, take func(*response) error) error {
	for {
		r, err := get(ctx, method, m.url+"/v1/shape?"+q.Encode())
		if err != nil {
			return err
		}
		if r.status != http.StatusOK {
			return fmt.Errorf("%s shape at %s: status %d: %.300s", method, q.Get("offset"), r.status, r.body)
		}
		if err := take(r); err != nil {
			return err
		}
		q.Set("offset", r.header.Get("electric-offset"))
		q.Set("handle", r.header.Get("electric-handle"))
		if _, ok := r.header["Electric-Up-To-Date"]; ok {
			return nil
		}
	}
}

// drop deletes the shape that q asks for, so that the next request creates it anew.
func (m *machine) drop(ctx context.Context, q url.Values) error {
	d := url.Values{"table": {q.Get("table")}}
	if w := q.Get("where"); w != "" {
		d.Set("where", w)
	}
	r, err := get(ctx, http.MethodDelete, m.url+"/v1/shape?"+d.Encode())
	if err != nil {
		return err
	}
	if r.status != http.StatusAccepted && r.status != http.StatusNotFound {
		return fmt.Errorf("delete the shape: status %d: %.300s", r.status, r.body)
	}
	return nil
}

// copyOut runs COPY to nowhere and returns the time until its first and its last byte, and the bytes.
func (m *machine) copyOut(ctx context.Context) (first, all time.Duration, size int64, err error) {
	w := &firstByteWriter{start: time.Now()}
	if _, err := m.conn.PgConn().CopyTo(ctx, w, "COPY reference TO STDOUT"); err != nil {
		return 0, 0, 0, fmt.Errorf("copy: %w", err)
	}
	return w.first, time.Since(w.start), w.size, nil
}

type firstByteWriter struct {
	start time.Time
	first time.Duration
	size  int64
}

func (w *firstByteWriter) Write(p []byte) (int, error) {
	if w.size == 0 {
		w.first = time.Since(w.start)
	}
	w.size += int64(len(p))
	return len(p), nil
}

// digest is a set of rows that does not depend on their order: how many, and the sum of their hashes.
type digest struct {
	rows int
	sum  uint64
}

var digestSeed = maphash.MakeSeed()

func (d *digest) add(values []string) {
	d.rows++
	d.sum += maphash.String(digestSeed, strings.Join(values, "\x00"))
}

// tableDigest asks Postgres for the rows, in the text form and with the settings that clients see.
func (m *machine) tableDigest(ctx context.Context, where string) (digest, error) {
	sql := "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, DMY'; " +
		"SELECT id, tenant_id, status, title, price, tags, updated_at FROM reference"
	if where != "" {
		sql += " WHERE " + where
	}
	var d digest
	results := m.conn.PgConn().Exec(ctx, sql)
	for results.NextResult() {
		rr := results.ResultReader()
		for rr.NextRow() {
			var row []string
			for _, v := range rr.Values() {
				row = append(row, string(v))
			}
			d.add(row)
		}
	}
	if err := results.Close(); err != nil {
		return digest{}, fmt.Errorf("read the table: %w", err)
	}
	return d, nil
}

// message is what of a message the check needs.
type message struct {
	Key     string            `json:"key"`
	Value   map[string]string `json:"value"`
	Headers struct {
		Operation string `json:"operation"`
		Control   string `json:"control"`
	} `json:"headers"`
}

// addBody adds the rows of an answer that holds inserts only.
func (d *digest) addBody(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("an answer does not begin: %w", err)
	}
	for dec.More() {
		var msg message
		if err := dec.Decode(&msg); err != nil {
			return fmt.Errorf("read a message: %w", err)
		}
		if msg.Headers.Control != "" {
			continue
		}
		if msg.Headers.Operation != "insert" {
			return fmt.Errorf("%s of %s where only inserts were made", msg.Headers.Operation, msg.Key)
		}
		v := msg.Value
		d.add([]string{v["id"], v["tenant_id"], v["status"], v["title"], v["price"], v["tags"], v["updated_at"]})
	}
	return nil
}

// plain undoes the answer's compression, if it has one.
func plain(r *response) ([]byte, error) {
	if r.header.Get("Content-Encoding") != "gzip" {
		return r.body, nil
	}
	z, err := gzip.NewReader(bufio.NewReader(bytes.NewReader(r.body)))
	if err != nil {
		return nil, fmt.Errorf("open an answer's gzip: %w", err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("read an answer's gzip: %w", err)
	}
	return slices.Clip(b), nil
}
