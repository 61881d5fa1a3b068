package shape_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

var readRelation = &pg.Relation{Schema: "public", Name: `odd "t/`, Columns: []pg.Column{
	{Name: "id", PK: 1}, {Name: `v"\`}, {Name: "w"},
}}

func readRow(v ...string) pg.Row {
	row := make(pg.Row, len(v))
	for i := range v {
		if v[i] != "<null>" {
			row[i] = []byte(v[i])
		}
	}
	return row
}

// TestRead reads back everything that is rendered, and appends it again byte for byte.
func TestRead(t *testing.T) {
	nasty := []string{"", `"`, `\`, `\\"`, "}],{[", "line\nbreak\x01", "żółć", "<null>", `","headers":{"`}
	for _, replica := range []shape.Replica{shape.ReplicaDefault, shape.ReplicaFull} {
		p := shape.NewProjection(readRelation, []int{0, 1, 2}, replica)
		for i, v := range nasty {
			old, row := readRow(v+"k", v, "same"), readRow(v+"k", nasty[(i+1)%len(nasty)], "same")
			at := shape.Place{XID: 7, LSN: 100, Op: 2}
			for _, c := range []struct {
				op   string
				body []byte
				want int // members
			}{
				{"insert", p.AppendRow(nil, old), 3},
				{"insert", p.AppendInsert(nil, at, old, row), 3},
				{"update", p.AppendUpdate(nil, at, old, row), map[shape.Replica]int{shape.ReplicaDefault: 2, shape.ReplicaFull: 3}[replica]},
				{"delete", p.AppendDelete(nil, at, old, nil), map[shape.Replica]int{shape.ReplicaDefault: 1, shape.ReplicaFull: 3}[replica]},
			} {
				var m shape.Change
				if err := m.Read(c.body); err != nil {
					t.Fatalf("%s: %v", c.body, err)
				}
				if m.Operation != c.op || len(m.Value) != c.want {
					t.Errorf("%s: read as %s with %d members", c.body, m.Operation, len(m.Value))
				}
				if got := shape.AppendChange(nil, &m); string(got) != string(c.body) {
					t.Errorf("%s came back as %s", c.body, got)
				}
				if c.op == "insert" {
					if got, want := p.AppendAsRow(nil, &m), p.AppendRow(nil, old); string(got) != string(want) {
						t.Errorf("row %s, want %s", got, want)
					}
				}
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	whole := `{"key":"\"public\".\"t\"/\"1\"","value":{"id":"1"},"headers":{"operation":"insert","relation":["public","t"]}}`
	for _, s := range []string{"", "{}", `{"headers":{"control":"up-to-date"}}`, `{"key":1,"value":{},"headers":{"operation":"insert"`,
		`{"key":"k","value":{1:"1"},"headers":{"operation":"insert"`, `{"key":"k","value":{},"headers":{"operation":"upsert"`,
		`{"key":"k","value":{"id":},"headers":{"operation":"insert"`} {
		if err := new(shape.Change).Read([]byte(s)); !errors.Is(err, shape.ErrNotChange) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for i := range len(whole) - len(`,"relation":["public","t"]}}`) {
		if err := new(shape.Change).Read([]byte(whole[:i])); !errors.Is(err, shape.ErrNotChange) {
			t.Errorf("%q: %v", whole[:i], err)
		}
	}
}

func TestOverlay(t *testing.T) {
	read := func(s string) []shape.Member {
		var c shape.Change
		if err := c.Read(fmt.Appendf(nil, `{"key":"k","value":%s,"headers":{"operation":"update"`, s)); err != nil {
			t.Fatal(err)
		}
		return c.Value
	}
	show := func(m []shape.Member) string {
		b := shape.AppendChange(nil, &shape.Change{Key: []byte(`"k"`), Value: m})
		return string(b[len(`{"key":"k","value":`) : len(b)-len(`,"headers":{`)])
	}
	for _, c := range []struct{ under, over, overlay, underlay string }{
		{`{"a":"1","b":"2","c":"3"}`, `{"a":"1","c":null}`, `{"a":"1","b":"2","c":null}`, `{"a":"1","b":"2","c":"3"}`},
		{`{"a":"1"}`, `{"a":"2","b":"3"}`, `{"a":"2","b":"3"}`, `{"a":"1","b":"3"}`},
		{`{}`, `{"a":"1"}`, `{"a":"1"}`, `{"a":"1"}`},
		{`{"b":"2","a":"1"}`, `{"a":"3","b":"4"}`, `{"b":"4","a":"3"}`, `{"b":"2","a":"1"}`},
	} {
		if got := show(shape.Overlay(read(c.under), read(c.over))); got != c.overlay {
			t.Errorf("overlay of %s over %s: %s", c.over, c.under, got)
		}
		if got := show(shape.Underlay(read(c.under), read(c.over))); got != c.underlay {
			t.Errorf("underlay of %s below %s: %s", c.over, c.under, got)
		}
	}
}

func TestMessagesOfAPage(t *testing.T) {
	for body, want := range map[string]int{
		`[]`: 0, `[{"a":"]"}]`: 1, `[{"a":[1,{}]},{"b":"\\\""}]`: 2, `[{"a":1},]`: -1, `[{"a":1}`: -1, `{}`: -1, `[{"a":1}]x`: -1, ``: -1, `[`: -1,
	} {
		n := 0
		err := shape.Messages([]byte(body), func(m []byte) error {
			if !json.Valid(m) {
				t.Errorf("%s: message %s", body, m)
			}
			n++
			return nil
		})
		if want < 0 {
			if !errors.Is(err, shape.ErrNotChange) {
				t.Errorf("%s: %v", body, err)
			}
		} else if err != nil || n != want {
			t.Errorf("%s: %d messages, %v", body, n, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"key":"k","value":{"id":"1","v":null},"old_value":{"v":"2"},"headers":{"operation":"update","lsn":"1"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c shape.Change
		if c.Read(b) == nil {
			if got := shape.AppendChange(nil, &c); string(got) != string(b) && len(c.OldValue) > 0 {
				t.Errorf("%q came back as %q", b, got)
			}
		}
		_ = shape.Messages(b, func([]byte) error { return nil })
	})
}

func BenchmarkRead(b *testing.B) {
	p := shape.NewProjection(readRelation, []int{0, 1, 2}, shape.ReplicaDefault)
	body := p.AppendRow(nil, readRow("1", "some text of usual length", "more"))
	var c shape.Change
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(body); err != nil {
			b.Fatal(err)
		}
	}
}
