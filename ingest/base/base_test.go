package base_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/ingest/base"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

var (
	rel    = &pg.Relation{Schema: "public", Name: "t", Columns: []pg.Column{{Name: "id", PK: 1}, {Name: "v"}}}
	proj   = shape.NewProjection(rel, []int{0, 1}, shape.ReplicaDefault)
	handle = shape.Handle{Shape: 7}
)

// write stores n rows of about 200 bytes, and returns the sizes of the pages' bodies.
func write(t *testing.T, store *object.Memory, n, bytesMax int, first func() error) (sizes []int, rows int) {
	t.Helper()
	w := base.NewWriter(t.Context(), store, handle, bytesMax, first)
	for i := range n {
		if err := w.Row(proj, pg.Row{fmt.Append(nil, i), []byte(strings.Repeat("x", 100))}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.End(pg.Snapshot{Xmin: 3, Xmax: 3})
	if err != nil {
		t.Fatal(err)
	}
	seen, total := 0, 0
	for k := range b.Pages {
		o, err := store.Get(t.Context(), handle.PageKey(k), object.Range{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := segment.DecodePage(o.Body)
		if err != nil || p.Last != (k == b.Pages-1) {
			t.Fatalf("page %d: last %v, %v", k, p.Last, err)
		}
		var items []struct {
			Headers struct{ Control, Operation string }
		}
		if err := json.Unmarshal(p.Body, &items); err != nil {
			t.Fatal(err)
		}
		for i, item := range items {
			end := p.Last && i == len(items)-1
			if (item.Headers.Control == "snapshot-end") != end || (item.Headers.Operation == "insert") == end {
				t.Fatalf("page %d item %d: %+v", k, i, item)
			}
		}
		seen += int(p.Rows)
		total += len(p.Body)
		sizes = append(sizes, len(p.Body))
	}
	if seen != int(b.Rows) || total != int(b.Bytes) {
		t.Errorf("the base says %+v, its pages have %d rows and %d bytes", b, seen, total)
	}
	if found, err := base.Find(t.Context(), store, handle); err != nil || found == nil || *found != b {
		t.Errorf("found %+v, %v; want %+v", found, err, b)
	}
	return sizes, seen
}

func TestPagesGrow(t *testing.T) {
	calls := 0
	sizes, rows := write(t, object.NewMemory(), 10000, 1<<30, func() error { calls++; return nil })
	if rows != 10000 || calls != 1 {
		t.Errorf("%d rows, first called %d times", rows, calls)
	}
	for i, want := range []int{64 << 10, 256 << 10, 1 << 20} {
		if sizes[i] < want || sizes[i] > want+1000 {
			t.Errorf("page %d has %d bytes, want about %d", i, sizes[i], want)
		}
	}
}

func TestPagesOfAThreshold(t *testing.T) {
	sizes, _ := write(t, object.NewMemory(), 300, 10000, func() error { return nil })
	for i, n := range sizes[:len(sizes)-1] {
		if n < 10000 || n > 10400 {
			t.Errorf("page %d has %d bytes", i, n)
		}
	}
}

func TestOnePage(t *testing.T) {
	for _, n := range []int{0, 1} {
		first := func() error { t.Error("a base of one page is opened and complete at once"); return nil }
		if sizes, rows := write(t, object.NewMemory(), n, 1<<20, first); len(sizes) != 1 || rows != n {
			t.Errorf("%d rows: pages %v, rows %d", n, sizes, rows)
		}
	}
}

// TestUnfinished: a base whose writer died is not found.
func TestUnfinished(t *testing.T) {
	store := object.NewMemory()
	w := base.NewWriter(t.Context(), store, handle, 100, func() error { return nil })
	for range 3 {
		if err := w.Row(proj, pg.Row{[]byte("1"), []byte(strings.Repeat("x", 100))}); err != nil {
			t.Fatal(err)
		}
	}
	w.Abandon()
	if found, err := base.Find(t.Context(), store, handle); found != nil || err != nil {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestFirstFails(t *testing.T) {
	no := errors.New("no")
	w := base.NewWriter(t.Context(), object.NewMemory(), handle, 10, func() error { return no })
	defer w.Abandon()
	if err := w.Row(proj, pg.Row{[]byte("1"), []byte("x")}); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}
