package serve

import (
	"strings"
	"testing"

	"github.com/shapeline/shapeline/serve/params"
)

// TestInvalid: every validation error of the protocol reference, 3.6, with its body; none reaches the Opener.
func TestInvalid(t *testing.T) {
	p := newPlant(t, Config{})
	long := strings.Repeat("x", 64)
	for _, c := range []struct{ query, errors string }{
		{"", `{"offset":["can't be blank"]}`},
		{"table=items", `{"offset":["can't be blank"]}`},
		{"table=items&offset=", `{"offset":["can't be blank"]}`},
		{"table=items&offset=%20%09", `{"offset":["can't be blank"]}`},
		{"table=items&offset", `{"offset":["can't be blank"]}`},
		{"table=items&offset=10", `{"offset":["has invalid format"]}`},
		{"table=items&offset=1_2_3", `{"offset":["has invalid format"]}`},
		{"table=items&offset=1_2%20", `{"offset":["has invalid format"]}`},
		{"table=items&offset=10_32.1", `{"offset":["has invalid format"]}`},
		{"table=items&offset=-1_1", `{"offset":["has invalid format"]}`},
		{"table=items&offset=5_-1", `{"offset":["has invalid format"]}`},
		{"table=items&offset=99999999999999999999_0", `{"offset":["has invalid format"]}`},
		{"table=items&offset=-1&offset=x", `{"offset":["has invalid format"]}`},
		{"table=items&offset=0_0", `{"handle":["can't be blank when offset != -1"]}`},
		{"table=items&offset=0_0&handle=+", `{"handle":["can't be blank when offset != -1"]}`},
		{"table=items&offset=-1&live", `{"live":["can't be true when offset == -1"]}`},
		{"table=items&offset=-1_0&live=1", `{"live":["can't be true when offset == -1"]}`},
		{"table=items&offset=now&live=true", `{"live":["can't be true when offset is 'now'"]}`},
		{"table=items&offset=0_0&handle=1-0&live_sse=true", `{"live_sse":["can't be true unless live is also true"]}`},
		{"table=items&offset=0_0&handle=1-0&live=false&experimental_live_sse",
			`{"live_sse":["can't be true unless live is also true"]}`},
		{"offset=-1", `{"table":["can't be blank"]}`},
		{"offset=-1&table=%20", `{"table":["can't be blank"]}`},
		{`offset=-1&table=""`, `{"table":["Invalid zero-length delimited identifier"]}`},
		{"offset=-1&table=a.", `{"table":["Invalid zero-length delimited identifier"]}`},
		{"offset=-1&table=a%20b", `{"table":["Invalid unquoted identifier contains special characters: a b"]}`},
		{`offset=-1&table="a"b"`, `{"table":["Invalid identifier with unescaped quote: a\"b"]}`},
		{"offset=-1&table=a.b.c", `{"table":["Invalid relation identifier, too many delimiters: a.b.c"]}`},
		{"offset=-1&table=" + long, `{"table":["Identifier is too long (max length is 63)"]}`},
		{"offset=-1&table=items&columns=id,,x", `{"columns":["Invalid zero-length delimited identifier"]}`},
		{"offset=-1&table=items&columns=a%20b",
			`{"columns":["Invalid unquoted identifier contains special characters: a b"]}`},
		{"offset=-1&table=items&queryable_columns=,", `{"queryable_columns":["Invalid zero-length delimited identifier"]}`},
		{"offset=-1&table=items&queryable_columns=id&columns=id,x,y",
			`{"columns":["The following columns are not queryable: x, y"]}`},
		{"offset=-1&table=items&params[x]=1", `{"params":["Parameters can only use numbers as keys"]}`},
		{"offset=-1&table=items&params[2]=1", `{"params":["Parameters must be numbered sequentially, starting from 1"]}`},
		{"offset=-1&table=items&params[0]=1", `{"params":["Parameters must be numbered sequentially, starting from 1"]}`},
		{"offset=-1&table=items&params[1]=1&params[01]=1",
			`{"params":["Parameters must be numbered sequentially, starting from 1"]}`},
		{`offset=-1&table=items&params={"1":"a"}`, `{"params":["is invalid"]}`},
		{"offset=-1&table=items&params[]=a", `{"params":["is invalid"]}`},
		{"offset=-1&table=items&params[1][2]=a", `{"params":["is invalid"]}`},
		{"offset=-1&table=items&params[1]=%00", `{"params":["is invalid"]}`},
		{"offset=-1&table[x]=items", `{"table":["is invalid"]}`},
		{"offset=-1&table=items&where=%00", `{"where":["is invalid"]}`},
		{"replica=half&log=none&experimental_compaction=maybe",
			`{"experimental_compaction":["is invalid"],"log":["is invalid"],"replica":["is invalid"]}`},
		{"offset=-1&table=items&junk=%zz", `{"query":["is invalid"]}`},
		{"offset=-1&table=%ff", `{"query":["is invalid"]}`},
		{"offset=-1&table=items&subset__where=true", `{"subset":["` + params.TextSubset + `"]}`},
		{"offset=now&table=items&subset[limit]=1", `{"subset":["` + params.TextSubset + `"]}`},
	} {
		expect(t, p.get(strings.ReplaceAll(c.query, `"`, "%22")), 400, `{"message":"Invalid request","errors":`+c.errors+`}`,
			"cache-control", "no-store", "surrogate-control", "no-store", "content-type", contentJSON,
			"electric-handle", "-", "electric-offset", "-")
		if t.Failed() {
			t.Fatalf("query %s", c.query)
		}
	}
	if p.opens != 0 {
		t.Errorf("the Opener was called %d times", p.opens)
	}
}

// FuzzQuery: no query string makes the handler panic or fail, or reach the Opener unless it is valid.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{
		"", "&&=", "table=items&offset=-1", "table=items&offset=0_0&handle=1-0", "table=items&offset=now", "params[1]=a",
		"table=items&offset=0_18446744073709551614&handle=1-0", "offset=18446744073709551614_inf&table=items&handle=1-0",
		"params[1][2]=x&params[]=y", "table=%22%22%22&offset=-1", "%zz=%ff&table=%00", "subset__where=1", "[=]&]=[",
		"table=items&offset=-1&columns=%22a,b%22&where=%ff", "handle=18446744073709551616-0&table=items&offset=1_1",
	} {
		f.Add(q)
	}
	p := newPlant(f, Config{LongPollTimeout: 1, SSETimeout: 1})
	p.handle("items")
	f.Fuzz(func(t *testing.T, raw string) {
		r := newRequest(t, "GET", "/v1/shape", "")
		r.URL.RawQuery = raw
		_, invalid := params.Parse(params.Decode(raw))
		opens := p.opens
		got := p.serve(r)
		switch {
		case got.Code >= 500, got.Code == 400 && invalid == nil && !strings.Contains(got.Body.String(), textOutOfBounds):
			t.Errorf("%q: %d %s", raw, got.Code, got.Body)
		case invalid != nil && (got.Code != 400 || p.opens != opens):
			t.Errorf("%q is invalid (%v): %d, %d shapes opened", raw, invalid, got.Code, p.opens-opens)
		}
	})
}
