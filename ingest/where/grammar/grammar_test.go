package grammar_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/ingest/where/grammar"
)

// TestParserSurvives: whatever was asked before, the next condition is parsed. A stack that overflows would break the
// parser for good.
func TestParserSurvives(t *testing.T) {
	repeat := func(s string) string { return strings.Repeat(s, 16_000/len(s)) }
	for _, text := range []string{
		repeat("("), repeat("["), repeat("NOT "), repeat("- "), "1" + repeat("+1"), "1" + repeat("::int"), repeat("f("),
		repeat("case when "), repeat("(select "), repeat("array["), "a" + repeat("[1]"), "a" + repeat(".a"), repeat(";"),
		"1=1" + repeat(" or b"), "1" + repeat(" union select 1"), "1 in (1" + repeat(",1") + ")", repeat("(1,"), "'", "$$",
		"/*", repeat("exists(select 1 where "), repeat("1 = any("), "a" + repeat(" and (a or b"), repeat("cast("),
		repeat("\""),
		repeat("a between 1 and "), "1" + repeat(" is null"), repeat("not a and "), repeat("x'"), repeat("1 operator(+) "),
		repeat("a = a and not a or "), "\xff", "\x00",
	} {
		if _, err := grammar.Parse(text); err != nil {
			var refusal *grammar.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("%.20s: %s", text, err)
			}
		}
		if _, err := grammar.Parse("a = 1"); err != nil {
			t.Fatalf("after %.20s: %s", text, err)
		}
	}
}

func TestParseDepth(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{strings.Repeat("(", 250) + "a" + strings.Repeat(")", 250), true},
		{strings.Repeat("(", 257) + "a" + strings.Repeat(")", 257), false},
		{"a" + strings.Repeat("+1", 250) + " = 1", true}, {"a" + strings.Repeat("+1", 260) + " = 1", false},
		{"a = 1" + strings.Repeat(" OR a = 1 AND NOT b", 2_000), true},
		{"a IN (1" + strings.Repeat(", -1", 9_000) + ")", true},
	} {
		if _, err := grammar.Parse(c.text); (err == nil) != c.ok {
			t.Errorf("%.30s (%d bytes): %v", c.text, len(c.text), err)
		}
	}
}
