package datum

import "strings"

// elementsMax bounds the elements of one array.
const elementsMax = 50_000

// ParseArray reads the elements of a one-dimensional array literal such as {1,NULL,"a b"}. An element is nil for
// NULL.
func ParseArray(s string) (elems []*string, ok bool) {
	s = strings.Trim(s, " \t\n\v\f\r")
	if len(s) < 2 || s[0] != '{' {
		return nil, false
	}
	s = strings.TrimLeft(s[1:], " \t\n\v\f\r")
	if s == "}" {
		return nil, true
	}
	for {
		elem, rest, ok := arrayElement(s)
		if !ok || len(elems) == elementsMax {
			return nil, false
		}
		elems = append(elems, elem)
		if rest == "}" {
			return elems, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		s = strings.TrimLeft(rest[1:], " \t\n\v\f\r")
	}
}

// arrayElement reads one element, and returns what follows: a comma or a closing brace, at least.
func arrayElement(s string) (elem *string, rest string, ok bool) {
	var text strings.Builder
	quoted, i := false, 0
	if s != "" && s[0] == '"' {
		for i = 1; i < len(s) && s[i] != '"'; i++ {
			if s[i] == '\\' {
				i++
			}
			if i < len(s) {
				text.WriteByte(s[i])
			}
		}
		quoted = true
		i++
	} else {
		for ; i < len(s) && s[i] != ',' && s[i] != '}'; i++ {
			if strings.IndexByte(`{"\`, s[i]) >= 0 {
				return nil, "", false // several dimensions, or escapes that nobody writes
			}
			text.WriteByte(s[i])
		}
	}
	if i > len(s) {
		return nil, "", false
	}
	rest = strings.TrimLeft(s[i:], " \t\n\v\f\r")
	value := text.String()
	if !quoted {
		value = strings.TrimRight(value, " \t\n\v\f\r")
	}
	switch {
	case rest == "" || value == "" && !quoted:
		return nil, "", false
	case !quoted && strings.EqualFold(value, "null"):
		return nil, rest, true
	}
	return &value, rest, true
}
