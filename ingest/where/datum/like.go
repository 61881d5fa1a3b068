package datum

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pattern is a compiled LIKE pattern. Matching takes at most the product of the lengths, and no recursion.
type Pattern struct {
	parts []part
	fold  bool // ignore the case of ASCII letters; the literals are in lower case
}

type part struct {
	kind    partKind
	literal []byte
}

type partKind uint8

const (
	literal partKind = iota
	anyChar          // _
	anyText          // %
)

// CompilePattern reads a pattern with backslash as its escape; fold ignores the case of ASCII letters. A pattern that
// ends in a lone backslash is an error in Postgres, and ok is false.
func CompilePattern(s string, fold bool) (p *Pattern, ok bool) {
	p = &Pattern{fold: fold}
	var lit []byte
	flush := func(k partKind) {
		if len(lit) > 0 {
			p.parts = append(p.parts, part{literal, lit})
			lit = nil
		}
		if k == anyText && len(p.parts) > 0 && p.parts[len(p.parts)-1].kind == anyText {
			return
		}
		if k != literal {
			p.parts = append(p.parts, part{kind: k})
		}
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '%':
			flush(anyText)
			continue
		case '_':
			flush(anyChar)
			continue
		case '\\':
			if i++; i == len(s) {
				return nil, false
			}
		}
		c := s[i]
		if fold {
			c = lower(c)
		}
		lit = append(lit, c)
	}
	flush(literal)
	return p, true
}

// Match reports whether s as a whole matches.
func (p *Pattern) Match(s []byte) bool {
	i, at := 0, 0           // part and place in s to go on with
	retry, retryAt := -1, 0 // the part behind the last %, and where to try it next
	for {
		if i == len(p.parts) {
			if at == len(s) {
				return true
			}
		} else {
			n := -1
			switch q := &p.parts[i]; q.kind {
			case literal:
				if p.hasPrefix(s[at:], q.literal) {
					n = len(q.literal)
				}
			case anyChar:
				if at < len(s) {
					_, n = utf8.DecodeRune(s[at:])
				}
			case anyText:
				if i++; i == len(p.parts) {
					return true
				}
				retry, retryAt = i, at
				continue
			}
			if n >= 0 {
				i, at = i+1, at+n
				continue
			}
		}
		// No match here: let the last % take one more character.
		if retry < 0 || retryAt >= len(s) {
			return false
		}
		_, n := utf8.DecodeRune(s[retryAt:])
		retryAt += n
		if q := &p.parts[retry]; q.kind == literal && !p.fold {
			skip := bytes.Index(s[retryAt:], q.literal)
			if skip < 0 {
				return false
			}
			retryAt += skip
		}
		i, at = retry, retryAt
	}
}

func (p *Pattern) hasPrefix(s, prefix []byte) bool {
	if !p.fold {
		return bytes.HasPrefix(s, prefix)
	}
	if len(s) < len(prefix) {
		return false
	}
	for i, c := range prefix {
		if lower(s[i]) != c {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// FoldsEverywhere reports whether folding ASCII letters is what every database's locale does to s: it has no other
// letters with case, and no mark that lower-casing produces.
func FoldsEverywhere(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		const dotAbove = '\u0307'
		return r >= utf8.RuneSelf && (r == dotAbove || unicode.SimpleFold(r) != r || unicode.ToLower(r) != r ||
			unicode.ToUpper(r) != r)
	})
}

// EscapeWith rewrites a pattern whose escape character is esc, possibly none, to one with a backslash; ok is false
// for an esc of several characters.
func EscapeWith(s, esc string) (_ string, ok bool) {
	if utf8.RuneCountInString(esc) > 1 {
		return "", false
	}
	if esc == `\` {
		return s, true
	}
	var b strings.Builder
	escaped := false
	for _, r := range s {
		switch {
		case string(r) == esc && !escaped:
			b.WriteByte('\\')
			escaped = true
			continue
		case r == '\\' && !escaped:
			b.WriteByte('\\')
		}
		b.WriteRune(r)
		escaped = false
	}
	return b.String(), true
}
