package datum

import (
	"bytes"
	"cmp"
	"math/big"
	"strconv"
	"strings"
)

// The limits of Postgres' numeric, and our own on constants.
const (
	scaleMax         = 16383   // digits after the point that a value may have
	wholeDigitsMax   = 1 << 17 // digits before the point
	divisionDigits   = 16      // significant digits that a quotient has at least
	divisionScaleMax = 1000    // digits after the point that a quotient has at most
	constDigitsMax   = 400     // digits of a constant written out; longer ones are refused
)

type decimalKind int8

// The kinds, in the order of their values.
const (
	negInf decimalKind = iota - 1
	finite
	posInf
	nan
)

// Decimal is an exact decimal number, NaN or an infinity: digits before the point without leading zeros, and digits
// after it without trailing ones. scale counts the digits after the point that Postgres shows; it matters to
// division and to printing only.
type Decimal struct {
	kind        decimalKind
	neg         bool // never set for zero
	scale       int
	whole, frac []byte
}

// read sets d to plain digits with an optional point, as Postgres prints them, and refers to b.
func (d *Decimal) read(b []byte) bool {
	*d = Decimal{}
	switch string(b) {
	case "NaN":
		d.kind = nan
		return true
	case "Infinity":
		d.kind = posInf
		return true
	case "-Infinity":
		d.kind = negInf
		return true
	}
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		d.neg = b[0] == '-'
		b = b[1:]
	}
	point, digits := -1, 0
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && point < 0:
			point = i
		default:
			return false
		}
	}
	if digits == 0 {
		return false
	}
	d.whole = b
	if point >= 0 {
		d.whole, d.frac = b[:point], b[point+1:]
	}
	d.scale = len(d.frac)
	d.trim()
	return true
}

// trim drops the zeros that say nothing.
func (d *Decimal) trim() {
	d.whole = bytes.TrimLeft(d.whole, "0")
	d.frac = bytes.TrimRight(d.frac, "0")
	if len(d.whole) == 0 && len(d.frac) == 0 {
		d.neg = false
	}
}

// parse reads a constant: also with an exponent, and words in any case.
func (d *Decimal) parse(s string) bool {
	s = floatWord(s)
	mantissa, exponent, hasExp := cutExponent(s)
	if len(mantissa) > constDigitsMax || !d.read([]byte(mantissa)) {
		return false
	}
	if !hasExp {
		return true
	}
	e, ok := parseInt([]byte(exponent))
	if !ok || d.kind != finite || e > constDigitsMax || e < -constDigitsMax {
		return false
	}
	_, fracText, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(strings.Replace(mantissa, ".", "", 1), "+-")
	at := len(digits) - len(fracText) + int(e) // where the point comes to stand
	if at < 0 {
		digits, at = strings.Repeat("0", -at)+digits, 0
	}
	if at > len(digits) {
		digits += strings.Repeat("0", at-len(digits))
	}
	neg := d.neg
	d.read([]byte(digits[:at] + "." + digits[at:]))
	d.neg = neg
	d.trim()
	return true
}

func cutExponent(s string) (mantissa, exponent string, ok bool) {
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// append prints d, with the zeros up to its scale when shown.
func (d *Decimal) append(dst []byte, shown bool) []byte {
	switch d.kind {
	case nan:
		return append(dst, "NaN"...)
	case posInf:
		return append(dst, "Infinity"...)
	case negInf:
		return append(dst, "-Infinity"...)
	}
	if d.neg {
		dst = append(dst, '-')
	}
	if len(d.whole) == 0 {
		dst = append(dst, '0')
	}
	dst = append(dst, d.whole...)
	if len(d.frac) > 0 || shown && d.scale > 0 {
		dst = append(append(dst, '.'), d.frac...)
	}
	for i := len(d.frac); shown && i < d.scale; i++ {
		dst = append(dst, '0')
	}
	return dst
}

func (d *Decimal) compare(e *Decimal) int {
	if d.kind != finite || e.kind != finite {
		return cmp.Compare(d.kind, e.kind)
	}
	if d.neg != e.neg {
		if d.neg {
			return -1
		}
		return 1
	}
	c := cmp.Compare(len(d.whole), len(e.whole))
	if c == 0 {
		c = bytes.Compare(d.whole, e.whole)
	}
	if c == 0 {
		c = bytes.Compare(d.frac, e.frac)
	}
	if d.neg {
		return -c
	}
	return c
}

func (d *Decimal) isZero() bool { return d.kind == finite && len(d.whole) == 0 && len(d.frac) == 0 }

// sign returns -1, 0 or 1; NaN counts as positive.
func (d *Decimal) sign() int {
	switch {
	case d.isZero():
		return 0
	case d.neg || d.kind == negInf:
		return -1
	}
	return 1
}

// scaled returns d times 10^scale, for a scale of at least d's own.
func (d *Decimal) scaled(scale int) *big.Int {
	digits := make([]byte, 0, len(d.whole)+scale+2)
	if d.neg {
		digits = append(digits, '-')
	}
	digits = append(append(append(digits, '0'), d.whole...), d.frac...)
	for i := len(d.frac); i < scale; i++ {
		digits = append(digits, '0')
	}
	n, _ := new(big.Int).SetString(string(digits), 10)
	return n
}

// setScaled sets v to n times 10^-scale, in v's own buffer; Bad when it is out of numeric's range.
func (v *Value) setScaled(n *big.Int, scale int) {
	buf := n.Append(v.buf[:0], 10)
	if n.Sign() < 0 {
		buf = buf[1:]
	}
	if short := scale + 1 - len(buf); short > 0 {
		buf = append(bytes.Repeat([]byte{'0'}, short), buf...)
	}
	v.buf = buf
	at := len(buf) - scale
	v.N = Decimal{neg: n.Sign() < 0, scale: scale, whole: buf[:at:at], frac: buf[at:]}
	v.N.trim()
	v.State = OK
	if len(v.N.whole) > wholeDigitsMax {
		v.State = Bad
	}
}

// divRound returns a/b rounded to the nearest integer, halves away from zero.
func divRound(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	if r.Lsh(r.Abs(r), 1).CmpAbs(b) >= 0 {
		one := int64(a.Sign() * b.Sign())
		q.Add(q, big.NewInt(one))
	}
	return q
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

func (v *Value) setKind(k decimalKind) { v.N, v.State = Decimal{kind: k}, OK }

// infinityOf returns the infinity with the sign s.
func infinityOf(s int) decimalKind {
	if s < 0 {
		return negInf
	}
	return posInf
}

// addDecimal sets v to a+b, or a-b when minus. v must not be a or b.
func (v *Value) addDecimal(a, b *Decimal, minus bool) {
	bk := b.kind
	if minus && (bk == posInf || bk == negInf) {
		bk = -bk
	}
	switch {
	case a.kind == nan || bk == nan || a.kind != finite && bk != finite && a.kind != bk:
		v.setKind(nan)
	case a.kind != finite:
		v.setKind(a.kind)
	case bk != finite:
		v.setKind(bk)
	default:
		scale := max(a.scale, b.scale)
		x, y := a.scaled(scale), b.scaled(scale)
		if minus {
			y.Neg(y)
		}
		v.setScaled(x.Add(x, y), scale)
	}
}

// mulDecimal sets v to a*b.
func (v *Value) mulDecimal(a, b *Decimal) {
	switch {
	case a.kind == nan || b.kind == nan:
		v.setKind(nan)
	case a.kind != finite || b.kind != finite:
		if s := a.sign() * b.sign(); s != 0 {
			v.setKind(infinityOf(s))
		} else {
			v.setKind(nan)
		}
	default:
		x, scale := a.scaled(a.scale), a.scale+b.scale
		x.Mul(x, b.scaled(b.scale))
		if scale > scaleMax {
			x, scale = divRound(x, pow10(scale-scaleMax)), scaleMax
		}
		v.setScaled(x, scale)
	}
}

// divDecimal sets v to a/b with as many digits as Postgres gives, and to Bad for a division by zero.
func (v *Value) divDecimal(a, b *Decimal) {
	switch {
	case a.kind == nan || b.kind == nan:
		v.setKind(nan)
	case a.kind != finite && b.kind != finite:
		v.setKind(nan)
	case b.isZero():
		v.State = Bad
	case a.kind != finite:
		v.setKind(infinityOf(a.sign() * b.sign()))
	case b.kind != finite:
		v.setScaled(new(big.Int), 0)
	default:
		scale := divisionScale(a, b)
		// a / b at that scale is (a * 10^scale / 10^a.scale) / (b / 10^b.scale).
		x, y := a.scaled(a.scale), b.scaled(b.scale)
		if e := scale + b.scale - a.scale; e >= 0 {
			x.Mul(x, pow10(e))
		} else {
			y.Mul(y, pow10(-e))
		}
		v.setScaled(divRound(x, y), scale)
	}
}

// divisionScale is select_div_scale of Postgres: at least 16 significant digits, counted in groups of four.
func divisionScale(a, b *Decimal) int {
	aw, ad := a.leading()
	bw, bd := b.leading()
	weight := aw - bw
	if ad <= bd {
		weight--
	}
	scale := max(divisionDigits-4*weight, a.scale, b.scale, 0)
	return min(scale, divisionScaleMax)
}

// leading returns the first group of four digits that is not zero, groups counted from the point, and its place: 0
// for the ones. It is 0, 0 for zero.
func (d *Decimal) leading() (weight, group int) {
	if n := len(d.whole); n > 0 {
		first := (n-1)%4 + 1
		group, _ = strconv.Atoi(string(d.whole[:first]))
		return (n - 1) / 4, group
	}
	for i := 0; i < len(d.frac); i += 4 {
		group = 0
		for j := i; j < i+4; j++ {
			group *= 10
			if j < len(d.frac) {
				group += int(d.frac[j] - '0')
			}
		}
		if group > 0 {
			return -i/4 - 1, group
		}
	}
	return 0, 0
}

// rounded returns d as an integer, halves away from zero, if it fits in 64 bits.
func (d *Decimal) rounded() (int64, bool) {
	if d.kind != finite || len(d.whole) > 20 {
		return 0, false
	}
	n := divRound(d.scaled(len(d.frac)), pow10(len(d.frac)))
	return n.Int64(), n.IsInt64()
}
