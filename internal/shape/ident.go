package shape

import (
	"fmt"
	"strings"
	"unicode"
)

// identBytesMax is NAMEDATALEN - 1: longer names are refused rather than cut.
const identBytesMax = 63

// Table names a table. Both parts are as the catalogue has them, unquoted.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// IdentError says why a name cannot be read, in the words that clients get.
type IdentError struct{ Text string }

// Error is the text.
func (e *IdentError) Error() string { return e.Text }

func badIdent(format string, args ...any) error { return &IdentError{fmt.Sprintf(format, args...)} }

// ParseTable reads [schema.]name by the grammar of the protocol reference, 3.4. The error is an *IdentError.
func ParseTable(s string) (Table, error) {
	parts := splitOutside(s, '.')
	if len(parts) > 2 {
		return Table{}, badIdent("Invalid relation identifier, too many delimiters: %s", s)
	}
	var names [2]string
	for i, p := range parts {
		n, err := parseIdent(p)
		if err != nil {
			return Table{}, err
		}
		names[i] = n
	}
	if len(parts) == 1 {
		return Table{Schema: "public", Name: names[0]}, nil
	}
	return Table{Schema: names[0], Name: names[1]}, nil
}

// String prints t with both parts quoted, as SQL and ParseTable read it.
func (t Table) String() string { return QuoteIdent(t.Schema) + "." + QuoteIdent(t.Name) }

// ParseColumns reads a comma-separated list of identifiers (protocol reference, 3.5). The error is an *IdentError.
func ParseColumns(s string) ([]string, error) {
	var cols []string
	for _, p := range splitOutside(s, ',') {
		n, err := parseIdent(p)
		if err != nil {
			return nil, err
		}
		cols = append(cols, n)
	}
	return cols, nil
}

// QuoteIdent writes name as a quoted SQL identifier.
func QuoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// splitOutside splits s at each sep that stands outside double quotes.
func splitOutside(s string, sep byte) []string {
	var parts []string
	quoted, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}

func parseIdent(s string) (string, error) {
	name := s
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		inner := s[1 : len(s)-1]
		if strings.Contains(strings.ReplaceAll(inner, `""`, ""), `"`) {
			return "", badIdent("Invalid identifier with unescaped quote: %s", inner)
		}
		name = strings.ReplaceAll(inner, `""`, `"`)
	} else if s != "" {
		for i, r := range s {
			letter := unicode.IsLetter(r) || r == '_'
			if !letter && (i == 0 || !unicode.IsMark(r) && (r < '0' || r > '9') && r != '$') {
				return "", badIdent("Invalid unquoted identifier contains special characters: %s", s)
			}
		}
		name = strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, s)
	}
	if name == "" {
		return "", badIdent("Invalid zero-length delimited identifier")
	}
	if len(name) > identBytesMax {
		return "", badIdent("Identifier is too long (max length is %d)", identBytesMax)
	}
	return name, nil
}
