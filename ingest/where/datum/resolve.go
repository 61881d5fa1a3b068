package datum

// CompareAs returns what the operands of a comparison are converted to, and as what they are compared, by the
// types that they have. It is the outcome of Postgres' operator resolution for every pair of types here.
func CompareAs(l, r Type) (class Type, ok bool) {
	switch {
	case l == Other || r == Other:
		return 0, false
	case l == Unknown && r == Unknown:
		return Text, true
	case l == Unknown:
		return CompareAs(r, r)
	case r == Unknown:
		return CompareAs(l, l)
	case l.IsInt() && r.IsInt():
		return Int8, true
	case l.IsNumber() && r.IsNumber():
		return MeetNumbers(l, r), true
	case l.IsText() && r.IsText():
		blank := func(t Type) bool { return t == Bpchar || t == Varchar }
		if blank(l) && blank(r) && (l == Bpchar || r == Bpchar) {
			return Bpchar, true
		}
		return Text, true
	case l == r:
		return l, true
	case l == Date && r == Timestamp || l == Timestamp && r == Date:
		return Timestamp, true
	}
	return 0, false
}

// MeetNumbers returns the type in which two numeric types meet: the wider of two integers, numeric if no float is
// involved, else float8 unless both are float4.
func MeetNumbers(l, r Type) Type {
	switch {
	case l == r, l.IsInt() && r.IsInt():
		return max(l, r)
	case l.IsFloat() || r.IsFloat():
		return Float8
	}
	return Numeric
}

// Common is the type to which the elements of a list are brought, as Postgres chooses it for IN and ARRAY. If there is
// none ok is false, and the element at culprit does not fit t.
func Common(list []Type) (t Type, culprit int, ok bool) {
	t = Unknown
	for i, n := range list {
		switch {
		case n == Unknown || n == t:
		case t == Unknown:
			t = n
		case category(t) != category(n):
			return t, i, false
		case t != Float8 && t != Text && t != Timestamptz && widens(t, n) && !widens(n, t):
			t = n
		}
	}
	if t == Unknown {
		t = Text
	}
	for i, n := range list {
		if n != Unknown && !widens(n, t) {
			return t, i, false
		}
	}
	return t, 0, true
}

func category(t Type) string {
	switch {
	case t.IsNumber():
		return "number"
	case t.IsText():
		return "text"
	case t >= Date:
		return "time"
	}
	return t.String()
}

// widens reports whether Postgres converts from one type to another without being asked to.
func widens(from, to Type) bool {
	switch {
	case from == to:
		return true
	case from.IsNumber() && to.IsNumber():
		return from < to
	case from == Name:
		return to == Text
	case from.IsText() && to.IsText():
		return true
	}
	return from == Date && (to == Timestamp || to == Timestamptz) ||
		from == Timestamp && to == Timestamptz
}
