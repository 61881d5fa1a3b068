package shape_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

func TestParseOffset(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"-1", "-1"}, {"-1_0", "-1"}, {"now", "now"}, {"0_0", "0_0"}, {"0_inf", "0_inf"}, {"0_02", "0_2"}, {"007_1", "7_1"},
		{"26745000_4", "26745000_4"}, {"18446744073709551614_18446744073709551614", "18446744073709551614_18446744073709551614"},
		{"", ""}, {"10", ""}, {"1_2_3", ""}, {"1_2 ", ""}, {" 1_2", ""}, {"10_32.1", ""}, {"-1_1", ""}, {"5_-1", ""}, {"_", ""},
		{"1_", ""}, {"_1", ""}, {"+1_0", ""}, {"1_+0", ""}, {"inf_0", ""}, {"1_INF", ""}, {"NOW", ""}, {"-2", ""},
		{"18446744073709551616_0", ""}, {"0_18446744073709551615", ""}, {"0x1_0", ""},
	} {
		got, err := shape.ParseOffset(c.in)
		if (err == nil) != (c.want != "") || err == nil && got.String() != c.want {
			t.Errorf("ParseOffset(%q) = %v, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestOffsetOrder(t *testing.T) {
	ascending := []shape.Offset{
		shape.Before, shape.Page(0), shape.Page(7), shape.SnapshotEnd, shape.At(1, 0), shape.At(1, 1), shape.At(1, shape.OpInf),
		shape.At(2, 0), shape.At(math.MaxUint64, 0), shape.Now,
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v against %v: %d", a, b, got)
			}
		}
	}
}

func FuzzParseOffset(f *testing.F) {
	for _, s := range []string{"-1", "now", "0_inf", "1_2", "00_00", "1_2_3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := shape.ParseOffset(s)
		if err != nil {
			return
		}
		if again, err := shape.ParseOffset(o.String()); err != nil || again != o {
			t.Errorf("%q prints as %q, which reads as %v, %v", s, o, again, err)
		}
	})
}

func TestHandle(t *testing.T) {
	h := shape.Handle{Shape: 34171288, Base: 2}
	if h.String() != "34171288-2" || h.PageKey(3) != "shapes/0000000002096998/base/00000002/00000003" {
		t.Errorf("got %s, %s", h, h.PageKey(3))
	}
	for _, bad := range []string{"", "1", "1-", "-1", "0-0", "01-0", "1-00", "1-0 ", "+1-0", "18446744073709551616-0", "1-4294967296", "a-b"} {
		if got, err := shape.ParseHandle(bad); err == nil {
			t.Errorf("ParseHandle(%q) = %v", bad, got)
		}
	}
}

func FuzzParseHandle(f *testing.F) {
	f.Add("1-0")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := shape.ParseHandle(s); err == nil && h.String() != s {
			t.Errorf("%q prints as %q", s, h)
		}
	})
}

func TestParseTable(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, c := range []struct{ in, schema, name, err string }{
		{"items", "public", "items", ""}, {"Items", "public", "items", ""}, {`"Items"`, "public", "Items", ""},
		{`electric_test."issues for 1234_0_ab12"`, "electric_test", "issues for 1234_0_ab12", ""},
		{`"a.b"."c""d"`, "a.b", `c"d`, ""}, {"größe", "public", "größe", ""}, {"ÄB", "public", "Äb", ""}, {"a$1", "public", "a$1", ""},
		{long, "public", long, ""},
		{"", "", "", "Invalid zero-length delimited identifier"},
		{`""`, "", "", "Invalid zero-length delimited identifier"},
		{"a.", "", "", "Invalid zero-length delimited identifier"},
		{"a b", "", "", "Invalid unquoted identifier contains special characters: a b"},
		{"1a", "", "", "Invalid unquoted identifier contains special characters: 1a"},
		{`a"b`, "", "", `Invalid unquoted identifier contains special characters: a"b`},
		{`"a"b"`, "", "", `Invalid identifier with unescaped quote: a"b`},
		{`"`, "", "", `Invalid unquoted identifier contains special characters: "`},
		{"a.b.c", "", "", "Invalid relation identifier, too many delimiters: a.b.c"},
		{long + "x", "", "", "Identifier is too long (max length is 63)"},
		{"a;drop", "", "", "Invalid unquoted identifier contains special characters: a;drop"},
		{"a\x00", "", "", "Invalid unquoted identifier contains special characters: a\x00"},
	} {
		got, err := shape.ParseTable(c.in)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("ParseTable(%q) = %v, %v; want error %q", c.in, got, err, c.err)
			}
		} else if err != nil || got != (shape.Table{Schema: c.schema, Name: c.name}) {
			t.Errorf("ParseTable(%q) = %v, %v", c.in, got, err)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	for _, s := range []string{"a", `"a"."b"`, `"`, `"""`, `""""`, "a.b.c", "é", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		table, err := shape.ParseTable(s)
		if err != nil {
			return
		}
		if again, err := shape.ParseTable(table.String()); err != nil || again != table {
			t.Errorf("%q is %q, which reads as %q, %v", s, table, again, err)
		}
	})
}

func TestParseColumns(t *testing.T) {
	got, err := shape.ParseColumns(`"id","normal","has,comma","has""quote",Title`)
	if want := []string{"id", "normal", "has,comma", `has"quote`, "title"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "a,", ",a", "a,,b", `"a`, "a b"} {
		if got, err := shape.ParseColumns(bad); err == nil {
			t.Errorf("ParseColumns(%q) = %q", bad, got)
		}
	}
}

func FuzzParseColumns(f *testing.F) {
	f.Add(`"a","b,c",d`)
	f.Fuzz(func(t *testing.T, s string) {
		cols, err := shape.ParseColumns(s)
		if err != nil {
			return
		}
		var quoted []string
		for _, c := range cols {
			quoted = append(quoted, shape.QuoteIdent(c))
		}
		if again, err := shape.ParseColumns(strings.Join(quoted, ",")); err != nil || !slices.Equal(again, cols) {
			t.Errorf("%q is %q, then %q, %v", s, cols, again, err)
		}
	})
}

func TestDefinitionHash(t *testing.T) {
	d := shape.Definition{Table: shape.Table{Schema: "public", Name: "a"}, Columns: []string{"b", "a", "b"}, Where: " x = 1 "}
	same := shape.Definition{Table: d.Table, Columns: []string{"a", "b"}, Where: "x = 1", Replica: shape.ReplicaDefault, Log: shape.LogFull}
	if d.Hash() != same.Hash() || len(d.Hash()) != 32 {
		t.Errorf("%s and %s", d.Hash(), same.Hash())
	}
	for _, other := range []func(*shape.Definition){
		func(d *shape.Definition) { d.Table.Name = "b" }, func(d *shape.Definition) { d.Where = "x = 2" },
		func(d *shape.Definition) { d.Columns = nil }, func(d *shape.Definition) { d.Replica = shape.ReplicaFull },
		func(d *shape.Definition) { d.Log = shape.LogChangesOnly }, func(d *shape.Definition) { d.Params = []string{""} },
	} {
		c := same
		other(&c)
		if c.Hash() == same.Hash() {
			t.Errorf("%+v has the hash of %+v", c, same)
		}
	}
}

// items is the table of the protocol reference's examples, 5.7.
var items = &pg.Relation{Schema: "public", Name: "items", Columns: []pg.Column{
	{Name: "id", PK: 1}, {Name: "title"}, {Name: "done"},
}}

func row(values ...any) pg.Row {
	r := make(pg.Row, len(values))
	for i, v := range values {
		if s, ok := v.(string); ok {
			r[i] = []byte(s)
		}
	}
	return r
}

func TestMessages(t *testing.T) {
	def := shape.NewProjection(items, []int{0, 1, 2}, shape.ReplicaDefault)
	full := shape.NewProjection(items, []int{0, 1, 2}, shape.ReplicaFull)
	at := func(xid pg.XID, lsn pg.LSN, op uint64) shape.Place { return shape.Place{XID: xid, LSN: lsn, Op: op} }
	a, b := row("1", "a", nil), row("1", "b", nil)
	end := func(b []byte) string { return string(shape.AppendEnd(b, true)) }
	for _, c := range []struct{ name, got, want string }{
		{"snapshot row", string(def.AppendRow(nil, a)),
			`{"key":"\"public\".\"items\"/\"1\"","value":{"id":"1","title":"a","done":null},"headers":{"operation":"insert","relation":["public","items"]}}`},
		{"update", end(def.AppendUpdate(nil, at(812, 26745288, 0), a, b)),
			`{"key":"\"public\".\"items\"/\"1\"","value":{"id":"1","title":"b"},"headers":{"operation":"update","txids":[812],"relation":["public","items"],"lsn":"26745288","op_position":0,"last":true}}`},
		{"update, full", end(full.AppendUpdate(nil, at(812, 26745288, 0), a, b)),
			`{"key":"\"public\".\"items\"/\"1\"","value":{"id":"1","title":"b","done":null},"old_value":{"title":"a"},"headers":{"operation":"update","txids":[812],"relation":["public","items"],"lsn":"26745288","op_position":0,"last":true}}`},
		{"key change, delete", string(shape.AppendEnd(def.AppendDelete(nil, at(813, 26745500, 0), b, row("2", "b", nil)), false)),
			`{"key":"\"public\".\"items\"/\"1\"","value":{"id":"1"},"headers":{"operation":"delete","txids":[813],"relation":["public","items"],"lsn":"26745500","op_position":0,"key_change_to":"\"public\".\"items\"/\"2\""}}`},
		{"key change, insert", end(def.AppendInsert(nil, at(813, 26745500, 1), row("2", "b", nil), b)),
			`{"key":"\"public\".\"items\"/\"2\"","value":{"id":"2","title":"b","done":null},"headers":{"operation":"insert","txids":[813],"relation":["public","items"],"lsn":"26745500","op_position":1,"key_change_from":"\"public\".\"items\"/\"1\"","last":true}}`},
		{"delete, full", end(full.AppendDelete(nil, at(1, 2, 4), a, nil)),
			`{"key":"\"public\".\"items\"/\"1\"","value":{"id":"1","title":"a","done":null},"headers":{"operation":"delete","txids":[1],"relation":["public","items"],"lsn":"2","op_position":4,"last":true}}`},
		{"up-to-date", string(shape.AppendUpToDate(nil, 26744592)), `{"headers":{"control":"up-to-date","global_last_seen_lsn":"26744592"}}`},
		{"snapshot-end", string(shape.AppendSnapshotEnd(nil, pg.Snapshot{Xmin: 800, Xmax: 805, Xip: []uint64{801, 803}})),
			`{"headers":{"control":"snapshot-end","xmin":"800","xmax":"805","xip_list":["801","803"]}}`},
	} {
		if c.got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, c.got, c.want)
		}
	}
}

func TestKeys(t *testing.T) {
	rel := &pg.Relation{Schema: "s", Name: `odd "t/x"`, Columns: []pg.Column{{Name: "a", PK: 2}, {Name: "b", PK: 1}}}
	noPK := &pg.Relation{Schema: "s", Name: "t", Columns: []pg.Column{{Name: "a"}, {Name: "b"}}}
	for _, c := range []struct {
		rel  *pg.Relation
		row  pg.Row
		want string
	}{
		{rel, row("1", "2"), `"s"."odd ""t//x"""/"2"/"1"`},
		{rel, row(`a/b`, `q"\`), `"s"."odd ""t//x"""/"q"\"/"a//b"`},
		{noPK, row(nil, ""), `"s"."t"/_/""`},
		{noPK, row("_", "//"), `"s"."t"/"_"/"////"`},
	} {
		p := shape.NewProjection(c.rel, []int{0}, shape.ReplicaDefault)
		var m struct{ Key string }
		if err := json.Unmarshal(p.AppendRow(nil, c.row), &m); err != nil || m.Key != c.want {
			t.Errorf("key %q, %v; want %q", m.Key, err, c.want)
		}
	}
}

// FuzzMessage: whatever the text, the message is JSON, and the value in it is the text.
func FuzzMessage(f *testing.F) {
	f.Add("plain", "x")
	f.Add("quote\" back\\ / \n\r\t\x00\x1f\u2028é", "/")
	p := shape.NewProjection(items, []int{0, 1, 2}, shape.ReplicaDefault)
	f.Fuzz(func(t *testing.T, id, title string) {
		id, title = strings.ToValidUTF8(id, "?"), strings.ToValidUTF8(title, "?")
		var m struct {
			Key   string
			Value map[string]*string
		}
		if err := json.Unmarshal(p.AppendRow(nil, row(id, title, nil)), &m); err != nil {
			t.Fatal(err)
		}
		key := `"public"."items"/"` + strings.ReplaceAll(id, "/", "//") + `"`
		if m.Key != key || *m.Value["id"] != id || *m.Value["title"] != title || m.Value["done"] != nil {
			t.Errorf("got %+v from %q, %q", m, id, title)
		}
	})
}

func TestRenderAllocs(t *testing.T) {
	p := shape.NewProjection(items, []int{0, 1, 2}, shape.ReplicaDefault)
	a, b, buf := row("1", "a/\"b", nil), row("1", "b", nil), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { p.AppendRow(buf, a); p.AppendUpdate(buf, shape.Place{}, a, b) }); n > 0 {
		t.Errorf("%v allocations a message", n)
	}
}

func BenchmarkAppendRow(b *testing.B) {
	p := shape.NewProjection(items, []int{0, 1, 2}, shape.ReplicaDefault)
	r, buf := row("123456", strings.Repeat("some text ", 12), "t"), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = p.AppendRow(buf[:0], r)
	}
	b.SetBytes(int64(len(buf)))
}
