package postgres

import (
	"bytes"
	"fmt"

	"github.com/shapeline/shapeline/internal/pg"
)

// copyDecoder reads rows of COPY's text format: one row a message, values separated by tabs and ended by a newline,
// \N for NULL, a few characters escaped by a backslash. It allocates only until its buffers have grown to the widest
// row.
type copyDecoder struct {
	row     pg.Row
	scratch []byte // holds the values that had escapes
}

// CopyFormatError says that a row of a COPY is not in the text format, or not as wide as asked for.
type CopyFormatError struct{ Reason string }

// Error gives the reason.
func (e *CopyFormatError) Error() string { return "malformed COPY row: " + e.Reason }

// decode reads one row of as many values as columns. The values are slices of line or of the decoder's own buffer,
// valid until the next call.
func (d *copyDecoder) decode(line []byte, columns int) (pg.Row, error) {
	end := len(line) - 1
	if end < 0 || line[end] != '\n' {
		return nil, &CopyFormatError{"no newline at its end"}
	}
	line = line[:end]
	if cap(d.row) < columns {
		d.row = make(pg.Row, columns)
	}
	row := d.row[:columns]
	if columns == 0 {
		if len(line) > 0 {
			return nil, &CopyFormatError{"values where no column was asked for"}
		}
		return row, nil
	}
	// Tabs and newlines within a value are escaped, so values can be cut apart before any is read.
	escapes := bytes.IndexByte(line, '\\') >= 0
	if escapes {
		d.reserve(len(line))
	}
	for i := range row {
		value := line
		if i < columns-1 {
			tab := bytes.IndexByte(line, '\t')
			if tab < 0 {
				return nil, &CopyFormatError{fmt.Sprintf("%d values instead of %d", i+1, columns)}
			}
			value, line = line[:tab:tab], line[tab+1:]
		} else if bytes.IndexByte(line, '\t') >= 0 {
			return nil, &CopyFormatError{fmt.Sprintf("more than %d values", columns)}
		} else {
			value = line[:len(line):len(line)]
		}
		if escapes {
			var err error
			if value, err = d.unescape(value); err != nil {
				return nil, err
			}
		}
		row[i] = value
	}
	return row, nil
}

// reserve empties the scratch buffer and makes room for n bytes, which is the most that a row of n bytes needs: so it
// never moves while a row is read.
func (d *copyDecoder) reserve(n int) {
	if cap(d.scratch) < n {
		d.scratch = make([]byte, 0, n+n/2)
	}
	d.scratch = d.scratch[:0]
}

// unescape returns value as it was before COPY escaped it; nil for NULL.
func (d *copyDecoder) unescape(value []byte) ([]byte, error) {
	at := bytes.IndexByte(value, '\\')
	if at < 0 {
		return value, nil
	}
	if len(value) == 2 && value[1] == 'N' {
		return nil, nil
	}
	from := len(d.scratch)
	for at >= 0 {
		d.scratch = append(d.scratch, value[:at]...)
		if at+1 == len(value) {
			return nil, &CopyFormatError{"a backslash at a value's end"}
		}
		c := unescaped[value[at+1]]
		if c == 0 {
			return nil, &CopyFormatError{fmt.Sprintf("unknown escape %q", value[at:at+2])}
		}
		d.scratch = append(d.scratch, c)
		value = value[at+2:]
		at = bytes.IndexByte(value, '\\')
	}
	d.scratch = append(d.scratch, value...)
	to := len(d.scratch)
	return d.scratch[from:to:to], nil
}

// unescaped is what follows a backslash in the output of COPY, and what it stands for. COPY never writes the octal and
// hexadecimal escapes that it reads.
var unescaped = [256]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', '\\': '\\'}
