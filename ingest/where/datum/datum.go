// Package datum holds single values of Postgres types: it reads the text that Postgres printed, reads the
// constants that people write, compares, calculates and converts them, and prints them again. Every function gives
// Postgres' own result, or says that it cannot.
//
// It knows nothing of expressions, rows or NULL logic; ingest/where builds those from it. Text is UTF-8.
//
// The one idea: a value read from a row is a view of the row's bytes. Text stays a slice, a numeric is two slices of
// digits, and only arithmetic makes something new, in a buffer that the result keeps for its next use.
package datum

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shapeline/shapeline/internal/pg"
)

// Type is a type whose values this package understands. The order of the numeric types is the order in which
// Postgres widens them.
type Type uint8

// The types. Other stands for every type that is not understood, Unknown for a constant whose type the context has
// yet to give.
const (
	Other Type = iota
	Unknown
	Bool
	Int2
	Int4
	Int8
	Numeric
	Float4
	Float8
	Text
	Varchar
	Bpchar
	Name
	UUID
	Date
	Time
	Timestamp
	Timestamptz
)

var typeNames = [...]string{
	"other", "unknown", "bool", "int2", "int4", "int8", "numeric", "float4", "float8", "text", "varchar", "bpchar",
	"name", "uuid", "date", "time", "timestamp", "timestamptz",
}

var typeOIDs = map[pg.OID]Type{
	16: Bool, 21: Int2, 23: Int4, 20: Int8, 1700: Numeric, 700: Float4, 701: Float8, 25: Text, 1043: Varchar,
	1042: Bpchar, 19: Name, 2950: UUID, 1082: Date, 1083: Time, 1114: Timestamp, 1184: Timestamptz,
}

// TypeOf returns the type with the given pg_type.oid, or Other.
func TypeOf(oid pg.OID) Type { return typeOIDs[oid] }

// ParseType reads what Type.String prints, for the types that have values.
func ParseType(name string) (Type, bool) {
	for t := Bool; t <= Timestamptz; t++ {
		if typeNames[t] == name {
			return t, true
		}
	}
	return Other, false
}

// String returns the type's pg_type.typname.
func (t Type) String() string { return typeNames[t] }

// IsInt reports whether t is int2, int4 or int8.
func (t Type) IsInt() bool { return t >= Int2 && t <= Int8 }

// IsFloat reports whether t is float4 or float8.
func (t Type) IsFloat() bool { return t == Float4 || t == Float8 }

// IsNumber reports whether t has arithmetic.
func (t Type) IsNumber() bool { return t >= Int2 && t <= Float8 }

// IsText reports whether t is one of the text types.
func (t Type) IsText() bool { return t >= Text && t <= Name }

// State says whether a Value holds something.
type State uint8

// The states. Bad is what an operation leaves behind where Postgres would raise an error, and what an unreadable
// text gives.
const (
	OK State = iota
	Null
	Bad
)

// Value is one value of a Type that the holder knows. The slices in it belong to what it was read from, or to its
// own buffer; they live until the Value is written again.
type Value struct {
	State State
	I     int64   // bool (0, 1), integers, date (days since 2000), time and timestamps (microseconds)
	F     float64 // float4 and float8
	B     []byte  // text types; uuid as Postgres prints it
	N     Decimal // numeric

	buf []byte
}

// Read sets v to what text means as a value of type t. It is for text that Postgres printed: nil is NULL, and what
// Postgres never prints is Bad or undefined, but never a panic. v refers to text afterwards.
func (v *Value) Read(t Type, text []byte) {
	v.State = OK
	if text == nil {
		v.State = Null
		return
	}
	ok := true
	switch t {
	case Bool:
		v.I, ok = 0, len(text) > 0
		if ok && text[0] == 't' {
			v.I = 1
		}
	case Int2, Int4, Int8:
		v.I, ok = parseInt(text)
	case Float4, Float8:
		v.F, ok = parseFloat(text, t)
	case Numeric:
		ok = v.N.read(text)
	case Text, Varchar, Bpchar, Name, UUID:
		v.B = text
	case Date:
		v.I, ok = parseDate(text)
	case Time:
		v.I, ok = parseTime(text)
	case Timestamp, Timestamptz:
		v.I, ok = parseTimestamp(text, t)
	default:
		ok = false
	}
	if !ok {
		v.State = Bad
	}
}

// Parse reads a constant of type t as a person or a program writes it. It accepts the plain forms of the input
// functions of Postgres, those that mean the same under every setting; dates and times are ISO 8601.
func Parse(t Type, s string) (Value, error) {
	var v Value
	ok := utf8.ValidString(s) && !strings.Contains(s, "\x00")
	if t.IsText() {
		if t == Name {
			s = clipName(s)
		}
		v.B = []byte(s)
	} else if t != UUID { // the one type that does not allow blanks
		s = strings.Trim(s, " \t\n\v\f\r")
	}
	switch {
	case !ok:
	case t.IsText():
	case t == Bool:
		v.I, ok = parseBool(s)
	case t.IsInt():
		v.I, ok = parseInt([]byte(s))
		ok = ok && fits(v.I, t)
	case t.IsFloat():
		v.F, ok = parseFloat([]byte(floatWord(s)), t)
	case t == Numeric:
		ok = v.N.parse(s)
	case t == UUID:
		v.B, ok = parseUUID(s)
	default: // what the rest print is what they read
		v.Read(t, []byte(s))
		ok = v.State == OK
	}
	if !ok {
		return Value{}, fmt.Errorf("invalid syntax for type %s: %s", t, s)
	}
	return v, nil
}

// Append appends v's text to dst, in a form that Postgres reads back as the same value whatever its settings.
// Integers, uuid, text and numeric look exactly as Postgres prints them.
func (v *Value) Append(dst []byte, t Type) []byte {
	switch t {
	case Bool:
		return strconv.AppendBool(dst, v.I != 0)
	case Int2, Int4, Int8:
		return strconv.AppendInt(dst, v.I, 10)
	case Float4, Float8:
		return appendFloat(dst, v.F, t)
	case Numeric:
		return v.N.append(dst, true)
	case Date:
		return appendDate(dst, v.I)
	case Time:
		return appendTime(dst, v.I)
	case Timestamp, Timestamptz:
		return appendTimestamp(dst, v.I, t)
	}
	return append(dst, v.B...)
}

// AppendKey appends bytes that are equal for two values of type t just when = holds between them. Int2, int4 and
// int8 have the same keys, and so have float4 and float8. The text of an integer, a uuid and a text other than
// bpchar is its key.
func (v *Value) AppendKey(dst []byte, t Type) []byte {
	switch t {
	case Float4, Float8:
		f := v.F + 0 // -0 and 0 are equal
		if f != f {
			f = math.NaN()
		}
		return appendInt64(dst, int64(math.Float64bits(f)))
	case Numeric:
		return v.N.append(dst, false)
	case Bpchar:
		return append(dst, trimBlanks(v.B)...)
	case Bool, Date, Time, Timestamp, Timestamptz:
		return appendInt64(dst, v.I)
	}
	return v.Append(dst, t)
}

func appendInt64(dst []byte, i int64) []byte {
	u := uint64(i)
	return append(dst, byte(u>>56), byte(u>>48), byte(u>>40), byte(u>>32), byte(u>>24), byte(u>>16), byte(u>>8), byte(u))
}

// Comparer returns the order of type t: the one of Postgres, and of bytes for text. It returns nil for types
// without one. Both values must be OK.
func Comparer(t Type) func(a, b *Value) int {
	switch t {
	case Bool, Int2, Int4, Int8, Date, Time, Timestamp, Timestamptz:
		return func(a, b *Value) int { return cmp.Compare(a.I, b.I) }
	case Float4, Float8:
		return func(a, b *Value) int { return compareFloat(a.F, b.F) }
	case Numeric:
		return func(a, b *Value) int { return a.N.compare(&b.N) }
	case Text, Varchar, Name, UUID:
		return func(a, b *Value) int { return bytes.Compare(a.B, b.B) }
	case Bpchar:
		return func(a, b *Value) int { return bytes.Compare(trimBlanks(a.B), trimBlanks(b.B)) }
	}
	return nil
}

// compareFloat orders as Postgres does: NaN equals itself and is above everything.
func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	}
	return -cmp.Compare(a, b) // cmp has NaN below everything
}

func trimBlanks(b []byte) []byte { return bytes.TrimRight(b, " ") }

func parseInt(b []byte) (int64, bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > math.MaxInt64/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if neg {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n <= math.MaxInt64
}

// fits reports whether i is in the range of the integer type t.
func fits(i int64, t Type) bool {
	switch t {
	case Int2:
		return i == int64(int16(i))
	case Int4:
		return i == int64(int32(i))
	}
	return true
}

// floatWord brings the words that float input knows to the case in which Postgres prints them.
func floatWord(s string) string {
	switch strings.ToLower(s) {
	case "nan":
		return "NaN"
	case "inf", "+inf", "infinity", "+infinity":
		return "Infinity"
	case "-inf", "-infinity":
		return "-Infinity"
	}
	return s
}

func parseFloat(b []byte, t Type) (float64, bool) {
	switch string(b) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	significant := false
	for i, c := range b {
		switch {
		case c == 'e' || c == 'E':
			if i == 0 {
				return 0, false
			}
		case c >= '1' && c <= '9':
			significant = significant || !bytes.ContainsAny(b[:i], "eE")
		case c != '0' && c != '.' && c != '-' && c != '+':
			return 0, false
		}
	}
	bits := 64
	if t == Float4 {
		bits = 32
	}
	f, err := strconv.ParseFloat(string(b), bits)
	return f, err == nil && (f != 0 || !significant) // what vanishes is out of range
}

func appendFloat(dst []byte, f float64, t Type) []byte {
	switch {
	case f != f:
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case t == Float4:
		return strconv.AppendFloat(dst, f, 'g', -1, 32)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// parseBool accepts what Postgres does: the words and their unambiguous beginnings.
func parseBool(s string) (int64, bool) {
	s = strings.ToLower(s)
	switch {
	case s == "":
		return 0, false
	case strings.HasPrefix("true", s), strings.HasPrefix("yes", s), s == "on", s == "1":
		return 1, true
	case strings.HasPrefix("false", s), strings.HasPrefix("no", s), s == "of", s == "off", s == "0":
		return 0, true
	}
	return 0, false
}

// parseUUID accepts upper case, braces, and hyphens left out or after any group of four digits, and returns the form
// that Postgres prints.
func parseUUID(s string) ([]byte, bool) {
	if len(s) >= 2 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	out := make([]byte, 0, 36)
	digits := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '-' && digits > 0 && digits < 32 && digits%4 == 0 && s[i-1] != '-' {
			continue
		}
		if c >= 'A' && c <= 'F' {
			c += 'a' - 'A'
		}
		if digits == 32 || (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return nil, false
		}
		if digits == 8 || digits == 12 || digits == 16 || digits == 20 {
			out = append(out, '-')
		}
		out = append(out, c)
		digits++
	}
	return out, digits == 32
}

// clipName cuts s to the 63 bytes that a name holds, at the border of a character.
func clipName(s string) string {
	const nameBytesMax = 63
	if len(s) <= nameBytesMax {
		return s
	}
	n := nameBytesMax
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
