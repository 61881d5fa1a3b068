package postgres

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
)

// reference is a COPY row of the shape that the performance goals are stated in.
const reference = "1234567\t4711\tin_progress\tThe title of the item, as people write them, number 7\t12345.67\t" +
	"{alpha,beta,gamma}\t2026-01-02 03:04:05.678901+00\n"

func row(values ...any) pg.Row {
	r := make(pg.Row, len(values))
	for i, v := range values {
		if s, ok := v.(string); ok {
			r[i] = []byte(s)
		}
	}
	return r
}

func TestDecodeCopy(t *testing.T) {
	for _, c := range []struct {
		in   string
		want pg.Row
	}{
		{"\n", row("")},
		{"a\n", row("a")},
		{"\\N\n", row(nil)},
		{"\\\\N\n", row(`\N`)},
		{"\t\n", row("", "")},
		{"a\t\\N\tc\n", row("a", nil, "c")},
		{"\\N\t\\N\n", row(nil, nil)},
		{"a\\tb\tc\\nd\te\\\\f\n", row("a\tb", "c\nd", `e\f`)},
		{`\b\f\n\r\t\v\\` + "\n", row("\b\f\n\r\t\v\\")},
		{"{\"a b\",NULL}\t{\"foo\": \"b\\\\\"ar\"}\n", row(`{"a b",NULL}`, `{"foo": "b\"ar"}`)},
		{"\\\\x00ff\tü\n", row(`\x00ff`, "ü")},
		{strings.Repeat("\t", 99) + "\n", make(pg.Row, 100)},
	} {
		var d copyDecoder
		for i, v := range c.want {
			if v == nil && len(c.want) == 100 {
				c.want[i] = []byte{}
			}
		}
		for range 2 { // the second time over used buffers
			got, err := d.decode([]byte(c.in), len(c.want))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
			}
		}
	}
}

func TestDecodeCopyNoColumns(t *testing.T) {
	var d copyDecoder
	if got, err := d.decode([]byte("\n"), 0); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

var badRows = []struct {
	in      string
	columns int
}{
	{"", 1}, {"a", 1}, {"a\t", 2}, // no newline
	{"a\n", 2}, {"a\tb\n", 1}, {"a\tb\tc\n", 2}, {"\n", 2}, {"a\n", 0}, // too few, too many
	{"\\\n", 1}, {"a\\\tb\n", 2}, {"\\x41\n", 1}, {"\\101\n", 1}, {"\\Na\n", 1}, {"a\\N\n", 1}, {"\\.\n", 1}, // escapes
}

func TestDecodeCopyMalformed(t *testing.T) {
	for _, c := range badRows {
		var d copyDecoder
		var e *CopyFormatError
		if got, err := d.decode([]byte(c.in), c.columns); !errors.As(err, &e) {
			t.Errorf("%q of %d columns: got %q, %v", c.in, c.columns, got, err)
		}
	}
}

// appendCopy writes a row as Postgres does.
func appendCopy(b []byte, r pg.Row) []byte {
	for i, v := range r {
		if i > 0 {
			b = append(b, '\t')
		}
		if v == nil {
			b = append(b, `\N`...)
			continue
		}
		for _, c := range v {
			if at := bytes.IndexByte([]byte("\b\f\n\r\t\v\\"), c); at >= 0 {
				b = append(b, '\\', `bfnrtv\`[at])
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '\n')
}

func FuzzDecodeCopy(f *testing.F) {
	for _, c := range badRows {
		f.Add([]byte(c.in), uint8(c.columns))
	}
	f.Add([]byte(reference), uint8(7))
	f.Add([]byte("a\\tb\t\\N\t\\\\\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, columns uint8) {
		var d copyDecoder
		got, err := d.decode(in, int(columns))
		if err != nil {
			return
		}
		for _, v := range got {
			if cap(v) != len(v) {
				t.Errorf("value %q can be appended to in place", v)
			}
		}
		again := appendCopy(nil, got)
		// A raw control character is as good as its escape, which Postgres writes; so compare what both mean.
		var second copyDecoder
		want, err := second.decode(again, int(columns))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, and by way of %q %q, %v", in, got, again, want, err)
		}
	})
}

func TestDecodeCopyAllocatesNothing(t *testing.T) {
	lines := [][]byte{[]byte(reference), []byte("1\t\\N\ta\\tb\t\\\\\t\\N\t\\N\tlast\n")}
	var d copyDecoder
	n := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			if _, err := d.decode(line, 7); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecodeCopy(b *testing.B) {
	for _, c := range []struct{ name, line string }{
		{"reference", reference},
		{"nulls", "1234567\t\\N\tin_progress\t\\N\t12345.67\t\\N\t2026-01-02 03:04:05.678901+00\n"},
		{"escapes", "1234567\t4711\tin_progress\tC:\\\\path\\\\to\\\\file\\n\t12345.67\t{alpha}\t\\N\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var d copyDecoder
			line := []byte(c.line)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.decode(line, 7); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
