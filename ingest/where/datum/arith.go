package datum

import (
	"math"
	"math/bits"
	"strconv"
)

// Binary returns the operator op, one of + - * /, of type t: it sets dst to the result for two values that are OK,
// or to Bad where Postgres raises an error. dst must be neither a nor b. It returns nil if there is no such operator.
func Binary(op byte, t Type) func(dst, a, b *Value) {
	switch {
	case t.IsInt():
		return func(dst, a, b *Value) {
			n, ok := intArith(op, a.I, b.I)
			dst.I, dst.State = n, OK
			if !ok || !fits(n, t) {
				dst.State = Bad
			}
		}
	case t == Float4:
		return func(dst, a, b *Value) {
			r := float32(0)
			x, y := float32(a.F), float32(b.F)
			switch op {
			case '+':
				r = x + y
			case '-':
				r = x - y
			case '*':
				r = x * y
			case '/':
				r = x / y
			}
			dst.setFloat(op, a.F, b.F, float64(r))
		}
	case t == Float8:
		return func(dst, a, b *Value) {
			r := float64(0)
			switch op {
			case '+':
				r = a.F + b.F
			case '-':
				r = a.F - b.F
			case '*':
				r = a.F * b.F
			case '/':
				r = a.F / b.F
			}
			dst.setFloat(op, a.F, b.F, r)
		}
	case t == Numeric && op == '*':
		return func(dst, a, b *Value) { dst.mulDecimal(&a.N, &b.N) }
	case t == Numeric && op == '/':
		return func(dst, a, b *Value) { dst.divDecimal(&a.N, &b.N) }
	case t == Numeric:
		return func(dst, a, b *Value) { dst.addDecimal(&a.N, &b.N, op == '-') }
	}
	return nil
}

// Negate returns the unary minus of type t, with the contract of Binary, or nil.
func Negate(t Type) func(dst, a *Value) {
	switch {
	case t.IsInt():
		return func(dst, a *Value) {
			dst.I, dst.State = -a.I, OK
			if a.I == math.MinInt64 || !fits(-a.I, t) {
				dst.State = Bad
			}
		}
	case t.IsFloat():
		return func(dst, a *Value) { dst.F, dst.State = -a.F, OK }
	case t == Numeric:
		return func(dst, a *Value) {
			dst.N, dst.State = a.N, OK
			dst.N.neg = a.N.kind == finite && !a.N.isZero() && !a.N.neg
			if a.N.kind == posInf || a.N.kind == negInf {
				dst.N.kind = -a.N.kind
			}
		}
	}
	return nil
}

func intArith(op byte, a, b int64) (int64, bool) {
	switch op {
	case '+':
		s := a + b
		return s, (s > a) == (b > 0)
	case '-':
		s := a - b
		return s, (s < a) == (b > 0)
	case '*':
		hi, lo := bits.Mul64(uint64(a), uint64(b))
		h := int64(hi) // of the unsigned product; make it the signed one's
		if a < 0 {
			h -= b
		}
		if b < 0 {
			h -= a
		}
		return int64(lo), h == int64(lo)>>63
	}
	if b == 0 || a == math.MinInt64 && b == -1 {
		return 0, false
	}
	return a / b, true
}

// setFloat sets v to r, the result of a op b, unless Postgres calls that an overflow, an underflow or a division by
// zero.
func (v *Value) setFloat(op byte, a, b, r float64) {
	v.F, v.State = r, OK
	if op == '/' && b == 0 && a == a {
		v.State = Bad
		return
	}
	finiteIn := !math.IsInf(a, 0) && (op == '/' || !math.IsInf(b, 0))
	vanished := r == 0 && a != 0 && (op == '*' && b != 0 || op == '/' && !math.IsInf(b, 0))
	if math.IsInf(r, 0) && finiteIn || vanished {
		v.State = Bad
	}
}

// Cast returns the conversion from one type to another with the contract of Binary, or nil if there is none that
// gives Postgres' result for every value. Values read from text may share memory with the source.
func Cast(from, to Type) func(dst, src *Value) {
	switch {
	case from == to, from.IsInt() && to == Int8, from == Int2 && to == Int4, from == Float4 && to == Float8,
		from.IsText() && from != Bpchar && (to == Text || to == Varchar || to == Bpchar):
		return func(dst, src *Value) { dst.State, dst.I, dst.F, dst.B, dst.N = src.State, src.I, src.F, src.B, src.N }
	case from == Bpchar && (to == Text || to == Varchar):
		return func(dst, src *Value) { dst.B, dst.State = trimBlanks(src.B), OK }
	case from.IsNumber() && to.IsNumber():
		return castNumber(from, to)
	case from == Bool && to == Int4:
		return func(dst, src *Value) { dst.I, dst.State = src.I, OK }
	case from == Int4 && to == Bool:
		return func(dst, src *Value) { dst.I, dst.State = min(src.I&math.MaxUint32, 1), OK }
	case (from == Bool || from.IsInt() || from == Numeric || from == UUID) && (to == Text || to == Varchar):
		return func(dst, src *Value) {
			dst.buf = src.Append(dst.buf[:0], from)
			dst.B, dst.State = dst.buf, OK
		}
	case from == Date && to == Timestamp:
		return func(dst, src *Value) {
			DateAsTimestamp(dst, src)
			if dst.I == beyondTimestamps {
				dst.State = Bad
			}
		}
	}
	return nil
}

// beyondTimestamps stands for every date too late to be a timestamp: above all timestamps but infinity.
const beyondTimestamps = timestampInfinity - 1

// DateAsTimestamp sets dst to the timestamp as which src, a date, compares with timestamps.
func DateAsTimestamp(dst, src *Value) {
	dst.State = OK
	switch {
	case src.I == dateMinusInfinity:
		dst.I = timestampMinusInfinity
	case src.I == dateInfinity:
		dst.I = timestampInfinity
	case src.I >= timestampEnd/day:
		dst.I = beyondTimestamps
	default:
		dst.I = src.I * day
	}
}

// castNumber converts between numeric types where it is more than a copy.
func castNumber(from, to Type) func(dst, src *Value) {
	setInt := func(dst *Value, n int64, ok bool) {
		dst.I, dst.State = n, OK
		if !ok || !fits(n, to) {
			dst.State = Bad
		}
	}
	switch {
	case from.IsInt() && to.IsInt():
		return func(dst, src *Value) { setInt(dst, src.I, true) }
	case from.IsInt() && to == Float4:
		return func(dst, src *Value) { dst.F, dst.State = float64(float32(src.I)), OK }
	case from.IsInt() && to == Float8:
		return func(dst, src *Value) { dst.F, dst.State = float64(src.I), OK }
	case from.IsInt() && to == Numeric:
		return func(dst, src *Value) {
			dst.buf = strconv.AppendInt(dst.buf[:0], src.I, 10)
			dst.N.read(dst.buf)
			dst.State = OK
		}
	case from == Numeric && to.IsInt():
		return func(dst, src *Value) {
			n, ok := src.N.rounded()
			setInt(dst, n, ok)
		}
	case from == Numeric && to.IsFloat():
		return func(dst, src *Value) {
			dst.buf = src.N.append(dst.buf[:0], false)
			f, ok := parseFloat(dst.buf, to)
			dst.F, dst.State = f, OK
			if !ok {
				dst.State = Bad
			}
		}
	case from.IsFloat() && to.IsInt():
		return func(dst, src *Value) {
			f := math.RoundToEven(src.F)
			ok := f >= math.MinInt64 && f < -math.MinInt64
			n := int64(0)
			if ok {
				n = int64(f)
			}
			setInt(dst, n, ok)
		}
	case from == Float8 && to == Float4:
		return func(dst, src *Value) {
			f := float64(float32(src.F))
			dst.F, dst.State = f, OK
			if math.IsInf(f, 0) && !math.IsInf(src.F, 0) || f == 0 && src.F != 0 {
				dst.State = Bad
			}
		}
	case from.IsFloat() && to == Numeric:
		digits := 15 // those that survive any float8
		if from == Float4 {
			digits = 6
		}
		return func(dst, src *Value) {
			dst.State = OK
			if math.IsNaN(src.F) || math.IsInf(src.F, 0) {
				dst.N.read(appendFloat(nil, src.F, from))
				return
			}
			dst.N.parse(strconv.FormatFloat(src.F, 'g', digits, 64))
		}
	}
	return nil
}
