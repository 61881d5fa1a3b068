package postgres_test

import (
	"encoding/json"
	"testing"

	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/pg"
)

func TestSchema(t *testing.T) {
	for _, c := range []struct {
		column pg.Column
		want   string
	}{
		{pg.Column{TypeName: "int8", Typmod: -1, PK: 1, NotNull: true}, `{"type":"int8","pk_index":0,"not_null":true}`},
		{pg.Column{TypeName: "text", Typmod: -1, Dims: 1}, `{"type":"text","dims":1}`},
		{pg.Column{TypeName: "int4", Typmod: -1, Dims: 2, PK: 3}, `{"type":"int4","dims":2,"pk_index":2}`},
		{pg.Column{TypeName: "numeric", Typmod: 10<<16 | 2 + 4}, `{"type":"numeric","precision":10,"scale":2}`},
		{pg.Column{TypeName: "numeric", Typmod: 5<<16 + 4}, `{"type":"numeric","precision":5,"scale":0}`},
		{pg.Column{TypeName: "numeric", Typmod: 2<<16 | 0x7fd + 4}, `{"type":"numeric","precision":2,"scale":-3}`},
		{pg.Column{TypeName: "numeric", Typmod: -1}, `{"type":"numeric"}`},
		{pg.Column{TypeName: "varchar", Typmod: 24}, `{"type":"varchar","max_length":20}`},
		{pg.Column{TypeName: "varchar", Typmod: -1}, `{"type":"varchar"}`},
		{pg.Column{TypeName: "bpchar", Typmod: 5}, `{"type":"bpchar","length":1}`},
		{pg.Column{TypeName: "bpchar", Typmod: -1}, `{"type":"bpchar"}`},
		{pg.Column{TypeName: "bit", Typmod: 8}, `{"type":"bit","length":8}`},
		{pg.Column{TypeName: "varbit", Typmod: -1}, `{"type":"varbit","length":-1}`},
		{pg.Column{TypeName: "timestamptz", Typmod: 3}, `{"type":"timestamptz","precision":3}`},
		{pg.Column{TypeName: "time", Typmod: -1}, `{"type":"time"}`},
		{pg.Column{TypeName: "timestamp", Typmod: 0}, `{"type":"timestamp"}`},
		{pg.Column{TypeName: "interval", Typmod: -1}, `{"type":"interval"}`},
		{pg.Column{TypeName: "interval", Typmod: 0x7fff<<16 | 3}, `{"type":"interval","precision":3}`},
		{pg.Column{TypeName: "interval", Typmod: 1<<18 | 0xffff}, `{"type":"interval","fields":"YEAR"}`},
		{pg.Column{TypeName: "interval", Typmod: (1<<3|1<<10|1<<11|1<<12)<<16 | 2},
			`{"type":"interval","fields":"DAY TO SECOND","precision":2}`},
		{pg.Column{TypeName: "geometry", Typmod: 1107460}, `{"type":"geometry","type_mod":1107460}`},
		{pg.Column{TypeName: "mood", Typmod: -1, NotNull: true}, `{"type":"mood","not_null":true}`},
	} {
		c.column.Name = "c"
		got := postgres.Schema(&pg.Relation{Columns: []pg.Column{c.column}}, []int{0})
		if want := `{"c":` + c.want + `}`; string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSchemaSelectsAndEscapes(t *testing.T) {
	rel := &pg.Relation{Columns: []pg.Column{
		{Name: "a", TypeName: "text", Typmod: -1}, {Name: `q"<é😀`, TypeName: "text", Typmod: -1},
		{Name: "c", TypeName: "int4", Typmod: -1},
	}}
	got := postgres.Schema(rel, []int{1, 2})
	for _, b := range got {
		if b >= 0x80 || b < ' ' {
			t.Fatalf("byte %#x in %s", b, got)
		}
	}
	var back map[string]struct{ Type string }
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if len(back) != 2 || back[`q"<é😀`].Type != "text" || back["c"].Type != "int4" {
		t.Errorf("got %s", got)
	}
	if got := postgres.Schema(rel, nil); string(got) != "{}" {
		t.Errorf("no columns: %s", got)
	}
}
