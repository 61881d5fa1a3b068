package params_test

import (
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/serve/params"
)

func TestParse(t *testing.T) {
	items := shape.Definition{Table: shape.Table{Schema: "public", Name: "items"}}
	with := func(change func(*shape.Definition)) shape.Definition {
		d := items
		change(&d)
		return d
	}
	for _, c := range []struct {
		query string
		want  params.Request
	}{
		{"table=items&offset=-1", params.Request{Definition: items}},
		{"table=public.ITEMS&offset=-1_0&handle=old", params.Request{Definition: items}},
		{"table=items&offset=now&handle=old&live=false", params.Request{Offset: shape.Now, Definition: items}},
		{"table=items&offset=0_02&handle=h", params.Request{Offset: shape.Page(2), Handle: "h", Definition: items}},
		{"table=items&offset=7_3&handle=h&live",
			params.Request{Offset: shape.At(7, 3), Handle: "h", Live: true, Definition: items}},
		{"table=items&offset=7_inf&handle=h&live=no&experimental_live_sse=true&cursor=40",
			params.Request{Offset: shape.At(7, shape.OpInf), Handle: "h", Live: true, SSE: true, Cursor: 40, Definition: items}},
		{"table=items&offset=7_0&handle=h&live=1&live_sse=false&experimental_live_sse=true&cursor=4.5",
			params.Request{Offset: shape.At(7, 0), Handle: "h", Live: true, Definition: items}},
		{"table=items&offset=-1&cursor=5&expired_handle=x&cache-buster=y&live[=1&subset=", params.Request{}},
		{"table=items&offset=-1&where=a+%3D+%241&params[1]=x%26y&params[2]=",
			params.Request{Definition: with(func(d *shape.Definition) {
				d.Where, d.Params = "a = $1", []string{"x&y", ""}
			})}},
		{"table=items&offset=-1&columns=%22b%22,a,a", params.Request{Definition: with(func(d *shape.Definition) {
			d.Columns = []string{"a", "b"}
		})}},
		{"table=items&offset=-1&queryable_columns=b,a", params.Request{Definition: with(func(d *shape.Definition) {
			d.Columns = []string{"a", "b"}
		})}},
		{"table=items&offset=-1&queryable_columns=b,a&columns=a&replica=full&log=changes_only&experimental_compaction=true",
			params.Request{Definition: with(func(d *shape.Definition) {
				d.Columns, d.Replica, d.Log = []string{"a"}, shape.ReplicaFull, shape.LogChangesOnly
			})}},
	} {
		got, err := params.Parse(params.Decode(c.query))
		if strings.Contains(c.query, "subset") {
			if err == nil {
				t.Errorf("%s: no error", c.query)
			}
			continue
		}
		c.want.Definition = c.want.Definition.Canonical()
		c.want.Hash = c.want.Definition.Hash()
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", c.query, got, err, c.want)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"/v1/shape":                              "/v1/shape",
		"/v1/shape?table=a&secret=s3cret&x":      "/v1/shape?table=a&secret=REDACTED&x",
		"/v1/shape?API_Secret=s&%73ecret=s&%z=s": "/v1/shape?API_Secret=REDACTED&%73ecret=REDACTED&%z=REDACTED",
		"/v1/shape?token=s&access_token=s&api_key=s&PASSWORD=s&tokens=s": "/v1/shape?token=REDACTED&access_token=REDACTED" +
			"&api_key=REDACTED&PASSWORD=REDACTED&tokens=s",
	} {
		u, err := url.ParseRequestURI(in)
		if err != nil || params.Redact(u) != want {
			t.Errorf("%s: got %s (%v), want %s", in, params.Redact(u), err, want)
		}
	}
}

// FuzzParse: whatever is called valid has one spelling, and reading never panics.
func FuzzParse(f *testing.F) {
	for _, q := range []string{
		"table=items&offset=-1", "table=items&offset=0_0&handle=1-0&live&live_sse", "params[1]=a&params[2]=b", "%zz=%ff",
		"table=%22%22%22&offset=now&columns=%22a,b%22", "params[1][2]=x&params[]=y", "[=]&]=[", "&&=&subset[x", "handle=1",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q := params.Decode(raw)
		q.Secret()
		if d, err := params.ParseDeletion(q); err == nil && d.Definition == nil && d.Handle == "" {
			t.Errorf("%q deletes nothing", raw)
		}
		r, err := params.Parse(q)
		if err != nil {
			return
		}
		if c := r.Definition.Canonical(); !reflect.DeepEqual(c, r.Definition) || c.Hash() != r.Hash {
			t.Errorf("%q: %+v is not canonical", raw, r.Definition)
		}
	})
}
