package pg_test

import (
	"reflect"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
)

func TestParseLSN(t *testing.T) {
	for _, c := range []struct {
		in   string
		want pg.LSN
		ok   bool
	}{
		{"0/0", 0, true}, {"16/B374D848", 0x16_B374D848, true}, {"FFFFFFFF/FFFFFFFF", 1<<64 - 1, true},
		{"", 0, false}, {"0", 0, false}, {"0/", 0, false}, {"/0", 0, false}, {"0/00", 0, false}, {"00/1", 0, false},
		{"0/1 ", 0, false}, {"0/b", 0, false}, {"+1/0", 0, false}, {"100000000/0", 0, false}, {"0/1/2", 0, false},
	} {
		got, err := pg.ParseLSN(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("ParseLSN(%q) = %v, %v", c.in, got, err)
		}
	}
}

func FuzzParseLSN(f *testing.F) {
	f.Add("0/0")
	f.Add("16/B374D848")
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := pg.ParseLSN(s); err == nil && l.String() != s {
			t.Errorf("%q prints as %q", s, l)
		}
	})
}

func TestSnapshotSees(t *testing.T) {
	for _, c := range []struct {
		snap string
		x    pg.XID
		sees bool
	}{
		{"800:800:", 799, true}, {"800:800:", 800, false},
		{"800:805:801,803", 799, true}, {"800:805:801,803", 800, true}, {"800:805:801,803", 801, false},
		{"800:805:801,803", 802, true}, {"800:805:801,803", 805, false},
		// The counter has wrapped: the low halves of 4294967290 … 4294967301 run from near the top past zero.
		{"4294967290:4294967301:4294967299", 4294967289, true}, {"4294967290:4294967301:4294967299", 2, true},
		{"4294967290:4294967301:4294967299", 3, false}, {"4294967290:4294967301:4294967299", 5, false},
	} {
		s, err := pg.ParseSnapshot(c.snap)
		if err != nil {
			t.Fatal(err)
		}
		if s.Sees(c.x) != c.sees {
			t.Errorf("%s sees %d = %v", c.snap, c.x, !c.sees)
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	for _, s := range []string{"800:800:", "800:805:801,803", "5:4:", "1:9:3,2", "1:9:0", "::", "1:2:,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if s, err := pg.ParseSnapshot(in); err == nil && s.String() != in {
			t.Errorf("%q prints as %q", in, s)
		}
	})
}

func TestRowClone(t *testing.T) {
	buf := []byte("abc")
	r := pg.Row{buf[:1], nil, buf[1:1], buf[1:]}
	c := r.Clone()
	copy(buf, "xyz")
	if want := (pg.Row{[]byte("a"), nil, []byte{}, []byte("bc")}); !reflect.DeepEqual(c, want) {
		t.Errorf("got %q, want %q", c, want)
	}
}

func TestRelationKey(t *testing.T) {
	r := &pg.Relation{Columns: []pg.Column{{Name: "a", PK: 2}, {Name: "b"}, {Name: "c", PK: 1}}}
	if got := r.Key(); !reflect.DeepEqual(got, []int{2, 0}) {
		t.Errorf("key %v", got)
	}
	r = &pg.Relation{Columns: []pg.Column{{Name: "a"}, {Name: "b"}}}
	if got := r.Key(); !reflect.DeepEqual(got, []int{0, 1}) || r.HasPK() {
		t.Errorf("key %v", got)
	}
}
