package pgoutput_test

import (
	"testing"

	"github.com/shapeline/shapeline/ingest/pgoutput"
)

func TestDecodeAllocatesNothingARow(t *testing.T) {
	d, rows := rowMessages(t)
	var m pgoutput.Message
	n := testing.AllocsPerRun(100, func() {
		for _, b := range rows {
			decode(t, d, b, &m)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d messages", n, len(rows))
	}
}

// rowMessages returns what one stream repeats for every transaction: begin, insert, update, delete, commit.
func rowMessages(t testing.TB) (*pgoutput.Decoder, [][]byte) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	var rows [][]byte
	for _, b := range stream(t)[:16] {
		decode(t, &d, b, &m)
		if m.Kind != pgoutput.Relation && m.Kind != pgoutput.Type {
			rows = append(rows, b)
		}
	}
	for _, b := range rows {
		decode(t, &d, b, &m)
	}
	return &d, rows
}

func BenchmarkInsert(b *testing.B) {
	d, rows := rowMessages(b)
	var m pgoutput.Message
	row := rows[4] // eight columns, six of them NULL
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		decode(b, d, row, &m)
	}
}

// BenchmarkInsertReference decodes a row of the shape that the performance goals are stated in.
func BenchmarkInsertReference(b *testing.B) {
	var d pgoutput.Decoder
	var m pgoutput.Message
	column := "\x00c\x00\x00\x00\x00\x19\xff\xff\xff\xff"
	decode(b, &d, relation("public", 'f', column, column, column, column, column, column, column), &m)
	row := []byte("I\x00\x00\x00\x09N\x00\x07")
	for _, v := range []string{"1234567", "4711", "in_progress", "The title of the item, as people write them, number 7",
		"12345.67", "{alpha,beta,gamma}", "2026-01-02 03:04:05.678901+00"} {
		row = append(row, 't', 0, 0, 0, byte(len(v)))
		row = append(row, v...)
	}
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		decode(b, &d, row, &m)
	}
}
