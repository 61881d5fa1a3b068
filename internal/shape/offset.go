package shape

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/shapeline/shapeline/internal/pg"
)

// Offset is a place in a shape's log (protocol reference, 3.3 and 7.1). The zero Offset is -1, before everything.
// Places with Tx 0 are in the snapshot part: 0_k after page k, 0_inf after all of it. The others are
// <commit LSN>_<position in the transaction>.
type Offset struct {
	kind offsetKind
	Tx   uint64
	Op   uint64 // OpInf is printed "inf"
}

type offsetKind uint8

const (
	kindBefore offsetKind = iota
	kindPlace
	kindNow
)

// OpInf is the Op behind every operation of its transaction.
const OpInf = math.MaxUint64

// The offsets with names of their own.
var (
	Before      = Offset{}                                  // -1: before everything
	Now         = Offset{kind: kindNow}                     // now: behind what there is at the time of the request
	SnapshotEnd = Offset{kind: kindPlace, Tx: 0, Op: OpInf} // 0_inf
)

// At returns the offset of the operation at position op of the transaction committed at lsn.
func At(lsn pg.LSN, op uint64) Offset { return Offset{kind: kindPlace, Tx: uint64(lsn), Op: op} }

// Page returns 0_k: behind page k of the snapshot part.
func Page(k uint32) Offset { return Offset{kind: kindPlace, Op: uint64(k)} }

// ParseOffset reads "-1" and its twin "-1_0", "now", and <tx>_<op> with op a number or "inf". Leading zeros are
// accepted, as the protocol wants; nothing else that String does not print is.
func ParseOffset(s string) (Offset, error) {
	switch s {
	case "-1", "-1_0":
		return Before, nil
	case "now":
		return Now, nil
	}
	tx, op, ok := strings.Cut(s, "_")
	t, terr := parseDecimal(tx)
	var o uint64 = OpInf
	var oerr error
	if op != "inf" {
		o, oerr = parseDecimal(op)
	}
	if !ok || terr != nil || oerr != nil {
		return Offset{}, fmt.Errorf("offset %q is not -1, now or <lsn>_<position>", s)
	}
	return Offset{kind: kindPlace, Tx: t, Op: o}, nil
}

func parseDecimal(s string) (uint64, error) {
	if s == "" || s[0] < '0' || s[0] > '9' { // ParseUint alone would take no sign, but be clear
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err == nil && n == OpInf {
		return 0, strconv.ErrRange // kept for "inf"
	}
	return n, err
}

// String prints o in canonical form.
func (o Offset) String() string { return string(o.Append(nil)) }

// Append appends o's canonical form to dst.
func (o Offset) Append(dst []byte) []byte {
	switch o.kind {
	case kindBefore:
		return append(dst, "-1"...)
	case kindNow:
		return append(dst, "now"...)
	}
	dst = strconv.AppendUint(dst, o.Tx, 10)
	dst = append(dst, '_')
	if o.Op == OpInf {
		return append(dst, "inf"...)
	}
	return strconv.AppendUint(dst, o.Op, 10)
}

// Compare orders offsets: -1, then by Tx, then by Op; now is behind everything.
func (o Offset) Compare(p Offset) int {
	if c := cmp.Compare(o.kind, p.kind); c != 0 {
		return c
	}
	if c := cmp.Compare(o.Tx, p.Tx); c != 0 {
		return c
	}
	return cmp.Compare(o.Op, p.Op)
}

// IsBefore reports whether o is -1.
func (o Offset) IsBefore() bool { return o.kind == kindBefore }

// IsNow reports whether o is "now".
func (o Offset) IsNow() bool { return o.kind == kindNow }

// InSnapshot reports whether o is 0_k or 0_inf.
func (o Offset) InSnapshot() bool { return o.kind == kindPlace && o.Tx == 0 }

// MarshalText prints o for JSON.
func (o Offset) MarshalText() ([]byte, error) { return o.Append(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (o *Offset) UnmarshalText(b []byte) (err error) {
	*o, err = ParseOffset(string(b))
	return err
}
