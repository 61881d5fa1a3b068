package datum

import (
	"bytes"
	"math"
	"strconv"
)

// Dates count days, and times and timestamps microseconds; both from 2000-01-01. The infinities are the ends of the
// range of what Postgres stores them in.
const (
	second = 1_000_000
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour

	dateMinusInfinity = math.MinInt32
	dateInfinity      = math.MaxInt32
	dateFirst         = -2_451_545    // 4714-11-24 BC
	dateEnd           = 2_145_031_949 // the day after 5874897-12-31

	timestampMinusInfinity = math.MinInt64
	timestampInfinity      = math.MaxInt64
	timestampFirst         = dateFirst * day           // 4714-11-24 BC
	timestampEnd           = 9_223_371_331_200_000_000 // 294277-01-01

	zoneHoursMax  = 15
	yearDigitsMax = 7
)

// scanner reads fields from the front of a text.
type scanner struct {
	b  []byte
	ok bool
}

// number reads exactly n digits that say at most max.
func (s *scanner) number(n, max int) int64 {
	if len(s.b) < n {
		s.ok = false
		return 0
	}
	v := 0
	for _, c := range s.b[:n] {
		if c < '0' || c > '9' {
			s.ok = false
			return 0
		}
		v = v*10 + int(c-'0')
	}
	s.b = s.b[n:]
	if v > max {
		s.ok = false
	}
	return int64(v)
}

// next takes c if it comes next.
func (s *scanner) next(c byte) bool {
	if len(s.b) > 0 && s.b[0] == c {
		s.b = s.b[1:]
		return true
	}
	return false
}

func (s *scanner) need(c byte) {
	if !s.next(c) {
		s.ok = false
	}
}

// cutBC removes the mark of a year before Christ from the end.
func (s *scanner) cutBC() bool {
	b, bc := bytes.CutSuffix(s.b, []byte(" BC"))
	s.b = b
	return bc
}

// date reads a year of four digits or more, a month and a day, and returns the day's number. Its range is not
// checked beyond what keeps the arithmetic from overflowing.
func (s *scanner) date(bc bool) int64 {
	n := 0
	for n < len(s.b) && s.b[n] >= '0' && s.b[n] <= '9' {
		n++
	}
	if n < 4 || n > yearDigitsMax || n > 4 && s.b[0] == '0' {
		s.ok = false
		return 0
	}
	y := s.number(n, math.MaxInt)
	s.need('-')
	m := s.number(2, 12)
	s.need('-')
	d := s.number(2, 31)
	if y == 0 || m == 0 || d == 0 {
		s.ok = false
	}
	if bc {
		y = 1 - y
	}
	if !s.ok || d > daysIn(y, m) {
		s.ok = false
		return 0
	}
	return dayNumber(y, m, d)
}

// clock reads HH:MM, optionally :SS and a fraction of up to six digits.
func (s *scanner) clock() int64 {
	t := s.number(2, 24) * hour
	s.need(':')
	t += s.number(2, 59) * minute
	if s.next(':') {
		t += s.number(2, 59) * second
		if s.next('.') {
			unit, any := int64(second), false
			for len(s.b) > 0 && s.b[0] >= '0' && s.b[0] <= '9' && unit > 1 {
				unit /= 10
				t += s.number(1, 9) * unit
				any = true
			}
			s.ok = s.ok && any
		}
	}
	if t > day {
		s.ok = false
	}
	return t
}

// zone reads Z or a signed offset, and returns what to add to get to UTC. Without one it returns 0.
func (s *scanner) zone() int64 {
	if len(s.b) == 0 || s.next('Z') || s.next('z') {
		return 0
	}
	east := s.next('+')
	if !east {
		s.need('-')
	}
	off := s.number(2, zoneHoursMax) * hour
	if len(s.b) > 0 {
		s.next(':')
		off += s.number(2, 59) * minute
		if s.next(':') {
			off += s.number(2, 59) * second
		}
	}
	if east {
		return -off
	}
	return off
}

func parseDate(b []byte) (int64, bool) {
	switch string(b) {
	case "infinity":
		return dateInfinity, true
	case "-infinity":
		return dateMinusInfinity, true
	}
	s := scanner{b: b, ok: true}
	d := s.date(s.cutBC())
	return d, s.ok && len(s.b) == 0 && d >= dateFirst && d < dateEnd
}

func parseTime(b []byte) (int64, bool) {
	s := scanner{b: b, ok: true}
	t := s.clock()
	return t, s.ok && len(s.b) == 0
}

// parseTimestamp reads a date, alone or with a time behind a blank or a T, and a zone. A timestamp ignores the zone,
// as Postgres does; a timestamptz without one is in UTC, which every session of ours is set to.
func parseTimestamp(b []byte, t Type) (int64, bool) {
	switch string(b) {
	case "infinity":
		return timestampInfinity, true
	case "-infinity":
		return timestampMinusInfinity, true
	}
	s := scanner{b: b, ok: true}
	d := s.date(s.cutBC())
	if !s.ok || d < dateFirst || d > timestampEnd/day {
		return 0, false
	}
	var clock, zone int64
	if len(s.b) > 0 {
		if !s.next(' ') {
			s.need('T')
		}
		clock = s.clock()
		zone = s.zone()
	}
	if t == Timestamp {
		zone = 0
	}
	if !s.ok || len(s.b) > 0 || clock == day {
		return 0, false
	}
	ts := d*day + clock + zone
	return ts, ts >= timestampFirst && ts < timestampEnd
}

// dayNumber counts the days from 2000-01-01 to the given day of the proleptic Gregorian calendar; year 0 is 1 BC.
// The years begin in March, which puts the leap day at the end.
func dayNumber(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	doy := (153*((m+9)%12)+2)/5 + d - 1
	return era*146_097 + yoe*365 + yoe/4 - yoe/100 + doy - 730_425
}

// civil is the inverse of dayNumber.
func civil(n int64) (y, m, d int64) {
	n += 730_425
	era := floorDiv(n, 146_097)
	doe := n - era*146_097
	yoe := (doe - doe/1_460 + doe/36_524 - doe/146_096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	m = (mp+2)%12 + 1
	y = yoe + era*400
	if m <= 2 {
		y++
	}
	return y, m, doy - (153*mp+2)/5 + 1
}

func daysIn(y, m int64) int64 {
	switch m {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func appendDate(dst []byte, n int64) []byte {
	switch n {
	case dateInfinity:
		return append(dst, "infinity"...)
	case dateMinusInfinity:
		return append(dst, "-infinity"...)
	}
	dst, bc := appendCivil(dst, n)
	return append(dst, bc...)
}

// appendCivil appends the date and returns what goes to the very end of the text.
func appendCivil(dst []byte, n int64) ([]byte, string) {
	y, m, d := civil(n)
	bc := ""
	if y <= 0 {
		y, bc = 1-y, " BC"
	}
	dst = appendPadded(dst, y, 4)
	dst = appendPadded(append(dst, '-'), m, 2)
	return appendPadded(append(dst, '-'), d, 2), bc
}

func appendTime(dst []byte, t int64) []byte {
	dst = appendPadded(dst, t/hour, 2)
	dst = appendPadded(append(dst, ':'), t%hour/minute, 2)
	dst = appendPadded(append(dst, ':'), t%minute/second, 2)
	if f := t % second; f != 0 {
		dst = append(dst, '.')
		for unit := int64(second / 10); f > 0; unit /= 10 {
			dst = append(dst, byte('0'+f/unit))
			f %= unit
		}
	}
	return dst
}

func appendTimestamp(dst []byte, ts int64, t Type) []byte {
	switch ts {
	case timestampInfinity:
		return append(dst, "infinity"...)
	case timestampMinusInfinity:
		return append(dst, "-infinity"...)
	}
	d := floorDiv(ts, day)
	dst, bc := appendCivil(dst, d)
	dst = appendTime(append(dst, ' '), ts-d*day)
	if t == Timestamptz {
		dst = append(dst, "+00"...)
	}
	return append(dst, bc...)
}

func appendPadded(dst []byte, n int64, width int) []byte {
	for w := int64(10); width > 1; width-- {
		if n < w {
			dst = append(dst, '0')
		}
		w *= 10
	}
	return strconv.AppendInt(dst, n, 10)
}
