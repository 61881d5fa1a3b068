package postgres

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shapeline/shapeline/internal/pg"
)

// Schema is the value of the electric-schema header for the selected columns of rel, which are places in rel.Columns:
// a JSON object from column name to type (protocol reference, 6.4). It is ASCII, because that is what a header
// carries safely.
func Schema(rel *pg.Relation, columns []int) []byte {
	b := []byte{'{'}
	for i, at := range columns {
		c := &rel.Columns[at]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, c.Name), `:{"type":`...)
		b = appendJSON(b, c.TypeName)
		if c.Dims > 0 {
			b = appendMember(b, "dims", c.Dims)
		}
		b = appendModifier(b, c)
		if c.PK > 0 {
			b = appendMember(b, "pk_index", c.PK-1)
		}
		if c.NotNull {
			b = append(b, `,"not_null":true`...)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// headerBytes is what Postgres adds to the modifiers of types with a length: VARHDRSZ.
const headerBytes = 4

// appendModifier writes what a type's modifier says, by the type's name: for arrays the element's.
func appendModifier(b []byte, c *pg.Column) []byte {
	mod := int(c.Typmod)
	switch c.TypeName {
	case "varchar", "text":
		if mod > 0 {
			b = appendMember(b, "max_length", mod-headerBytes)
		}
	case "bpchar":
		if mod > 0 {
			b = appendMember(b, "length", mod-headerBytes)
		}
	case "bit", "varbit":
		b = appendMember(b, "length", mod)
	case "time", "timetz", "timestamp", "timestamptz", "date":
		if mod > 0 {
			b = appendMember(b, "precision", mod)
		}
	case "interval":
		b = appendInterval(b, c.Typmod)
	case "numeric":
		if mod >= headerBytes {
			// 16 bits of precision; of the lower 16 the scale uses 11, with a sign since Postgres 15.
			scale := (mod-headerBytes)&0x7ff ^ 0x400 - 0x400
			b = appendMember(b, "precision", (mod-headerBytes)>>16&0xffff)
			b = appendMember(b, "scale", scale)
		}
	default:
		if mod >= 0 {
			b = appendMember(b, "type_mod", mod)
		}
	}
	return b
}

// intervalUnits are the fields of an interval in their order, with the bits that Postgres has for them.
var intervalUnits = []struct {
	name string
	mask int32
}{
	{"YEAR", 1 << 2}, {"MONTH", 1 << 1}, {"DAY", 1 << 3}, {"HOUR", 1 << 10}, {"MINUTE", 1 << 11}, {"SECOND", 1 << 12},
}

const (
	intervalAllFields   = 0x7fff // no fields were named
	intervalAnyFraction = 0xffff // no precision was named
)

func appendInterval(b []byte, mod int32) []byte {
	if mod < 0 {
		return b
	}
	if fields := mod >> 16; fields != intervalAllFields {
		var first, last string
		for _, u := range intervalUnits {
			if fields&u.mask == 0 {
				continue
			}
			if first == "" {
				first = u.name
			}
			last = u.name
		}
		if first != last {
			first += " TO " + last
		}
		if first != "" {
			b = appendJSON(append(b, `,"fields":`...), first)
		}
	}
	if precision := mod & 0xffff; precision != intervalAnyFraction {
		b = appendMember(b, "precision", int(precision))
	}
	return b
}

func appendMember(b []byte, name string, v int) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return strconv.AppendInt(b, int64(v), 10)
}

// appendJSON writes s as a JSON string of ASCII characters.
func appendJSON(b []byte, s string) []byte {
	quoted, err := json.Marshal(strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil {
		panic(err) // a string always encodes
	}
	for len(quoted) > 0 {
		r, n := utf8.DecodeRune(quoted)
		quoted = quoted[n:]
		switch {
		case r < utf8.RuneSelf:
			b = append(b, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = appendUnit(appendUnit(b, hi), lo)
		default:
			b = appendUnit(b, r)
		}
	}
	return b
}

// appendUnit writes one unit of UTF-16 as \uXXXX.
func appendUnit(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
