package serve

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// pack stores what h has in segments first to last as a pack, and deletes the segments.
func (p *plant) pack(h shape.Handle, first, last uint64) catalog.Pack {
	p.tb.Helper()
	ctx := p.tb.Context()
	var b segment.Builder
	for seq := first; seq <= last; seq++ {
		o, err := p.store.Get(ctx, shapelog.SegmentKey(seq), object.Range{})
		if err != nil {
			p.tb.Fatal(err)
		}
		s, err := segment.Decode(o.Body)
		if err != nil {
			p.tb.Fatal(err)
		}
		for i := range s.Frames {
			b.Add(&s.Frames[i])
		}
		if err := p.store.Delete(ctx, shapelog.SegmentKey(seq)); err != nil {
			p.tb.Fatal(err)
		}
	}
	body, meta := b.Seal(segment.Meta{Seq: last, Epoch: 1})
	pack := catalog.Pack{Level: 1, First: first, Last: last, Sum: meta.Sum, Size: int64(len(body))}
	if _, err := p.store.Put(ctx, pack.Key(), body, object.IfAbsent()); err != nil {
		p.tb.Fatal(err)
	}
	return pack
}

// TestPackedMeanwhile: the segments that a view refers to are gone when it is read; what they held is in a pack that
// this process has not heard of.
func TestPackedMeanwhile(t *testing.T) {
	bubble(t, Config{SegmentBytes: 1}, func(t *testing.T, p *plant) {
		h := p.handle("items")
		first := p.log.Next()
		a, b := p.commit(h, 1, false), p.commit(h, 2, false)
		last := p.log.Next() - 1
		if err := p.s.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, what := p.s.look(h, shape.SnapshotEnd)
		if what != inBounds || len(v.plan.Extents) != 2 {
			t.Fatalf("%d, %+v", what, v)
		}
		pack := p.pack(h, first, last)
		p.put(segment.Frame{Records: []segment.Record{catalog.PackedRecord(pack, nil)}})
		p.commit(h, 1, false) // and the log has grown: the view must not show it

		got, err := p.s.entries(t.Context(), v, false)
		want := "[" + entry(a, 0, true) + "," + entry(b, 0, false) + "," + entry(b, 1, true)
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v\nwant %s", got, err, want)
		}
	})
}

// TestLaterBase: new clients begin with the newest base, old ones go on, and once retention ends those that are behind
// are sent to the newest.
func TestLaterBase(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, p *plant) {
		p.pages = []string{snapshotEnd}
		old := p.handle("items")
		a, b := p.commit(old, 1, false), p.commit(old, 1, false)
		newer := shape.Handle{Shape: old.Shape, Base: 77}
		p.page(newer, 0, `[{"key":"new"}]`)
		p.put(segment.Frame{Records: []segment.Record{
			catalog.RebasedRecord(old.Shape, catalog.Rebase{Gen: 77, At: shape.At(a, 0), Base: catalog.Base{Pages: 1}}),
		}})
		last := shape.At(b, 0).String()

		got := p.get("table=items&offset=-1")
		expect(t, got, 200, `[{"key":"new"}]`, "electric-handle", newer.String(), "electric-offset", "0_0")
		got = p.get("table=items&offset=0_0&handle=" + newer.String())
		expect(t, got, 200, "["+entry(b, 0, true)+","+upToDate(p.visible)+"]", "electric-handle", newer.String(), "electric-offset", last)
		got = p.get("table=items&offset=0_0&handle=" + old.String())
		expect(t, got, 200, "["+entry(a, 0, true)+","+entry(b, 0, true)+","+upToDate(p.visible)+"]",
			"electric-handle", old.String(), "electric-offset", last)
		got = p.get("table=items&offset=-1&handle=" + old.String()) // who begins has no handle yet
		expect(t, got, 200, `[{"key":"new"}]`, "electric-handle", newer.String())

		p.put(segment.Frame{Records: []segment.Record{catalog.TrimmedRecord(old.Shape, shape.At(a, 0))}})
		for _, offset := range []string{"0_0", "0_inf", shape.At(a-1, 0).String()} {
			got = p.get("table=items&offset=" + offset + "&handle=" + old.String())
			expect(t, got, http.StatusConflict, mustRefetch, "electric-handle", newer.String())
		}
		got = p.get("table=items&offset=" + shape.At(a, 0).String() + "&handle=" + old.String())
		expect(t, got, 200, "["+entry(b, 0, true)+","+upToDate(p.visible)+"]", "electric-handle", old.String())
		live := later(func() answered { return p.get("table=items&live=true&offset=" + last + "&handle=" + old.String()) })
		synctest.Wait()
		c := p.commit(old, 1, false)
		expect(t, <-live, 200, "["+entry(c, 0, true)+","+upToDate(c)+"]", "electric-handle", old.String())
		got = p.get("table=items&offset=0_0&handle=" + shape.Handle{Shape: old.Shape, Base: 5}.String())
		expect(t, got, http.StatusConflict, mustRefetch, "electric-handle", newer.String())
	})
}
