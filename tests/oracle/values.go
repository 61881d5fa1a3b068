package oracle

// texts are values that some layer may break: COPY's escapes, JSON's, SQL's, LIKE's wildcards, the key's slash,
// combining characters and line separators.
var texts = []string{
	"", " ", "foo", "open", "o%", "100%", "a_b", "A\\b", `\N`, `\.`, "tab\there", "line\nbreak\r\n", "\b\f\v\x01\x7f",
	`"quoted"`, "it''s", "a/b//c", "<script>&amp;", "\u2028\u2029", "e\u0301 é", "日本語", "🦉", "{}", "null", "NULL",
	"_", "trailing blank ",
}

var docNames = []string{"", "readme", "a/b", "a//b", `"`, `back\slash`, "ö", "🦉", "new\nline", "_", " ", "NULL"}

// values holds the literals for each column of items, edge cases of its type among them.
var values = map[string][]string{
	"tenant": {"1", "2", "3", "4", "0", "-1"},
	"status": append([]string{"'open'", "'open'", "'done'", "'done'", "'Open'", "'closed'", "'oe'"}, quoteAll(texts)...),
	"b":      {"true", "false"},
	"i2":     {"0", "1", "-32768", "32767"},
	"i8":     {"0", "5", "6", "-9223372036854775808", "9223372036854775807", "9007199254740993"},
	"f4":     {"0", "'-0'", "1.5", "0.1", "'NaN'", "'Infinity'", "'-Infinity'", "1e-40", "3.4028235e38"},
	"f8": {
		"0", "'-0'", "1", "1.0000000000000002", "0.1", "'NaN'", "'Infinity'", "'-Infinity'", "5e-324",
		"1.7976931348623157e308",
	},
	"n": {
		"0", "1.5", "1.50", "1.500000000000000000001", "-0.0", "'NaN'", "'Infinity'", "'-Infinity'", "1e30", "1e-30",
		"123456789012345678901234567890.123456789",
	},
	"n2": {"0", "0.1", "0.10", "-1.005", "999999.99"},
	"v":  quoteAll([]string{"aXb", "xxaAbxx", "A_b", "", "ÄB", "b", "%A%"}),
	"c":  quoteAll([]string{"", "a", "ab  ", "abcd", "é"}),
	"u": quoteAll([]string{
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
	}),
	"d":  quoteAll([]string{"2020-01-01", "2019-12-31", "infinity", "-infinity", "0044-03-15 BC", "294276-01-01"}),
	"tm": quoteAll([]string{"00:00", "23:59:59.5", "24:00:00", "12:34:56.789012"}),
	"ts": quoteAll([]string{"2000-01-01", "1999-12-31 23:59:59.999999", "infinity", "-infinity", "4713-01-01 BC"}),
	"tz": quoteAll([]string{"2024-06-01 12:00:00+02", "2024-06-01 10:00:00.123456Z", "infinity", "0001-01-01 00:00+14"}),
	"iv": quoteAll([]string{"0", "1 day 2 hours", "-1 year 3 mons", "00:00:00.000001", "100 years -1 day"}),
	"by": {`'\x'`, `'\x00ff5c'`, `'\xdeadbeef'`},
	"j":  quoteAll([]string{`{"a":  1}`, "null", `"x"`, `[1, 2,3]`}),
	"jb": quoteAll([]string{`{"b":1,"a":  2}`, "null", `"\u00e9\n"`, "[]"}),
	"tags": quoteAll([]string{
		"{}", "{a,b}", `{"a b",NULL,"null"}`, `{"quo\"te","back\\slash","com,ma"}`, "{{a,b},{c,d}}", "[0:1]={x,y}",
	}),
	"mood": quoteAll([]string{"sad", "ok", "very happy"}),
}

func quoteAll(texts []string) []string {
	quoted := make([]string, len(texts))
	for i, s := range texts {
		quoted[i] = quoteText(s)
	}
	return quoted
}
