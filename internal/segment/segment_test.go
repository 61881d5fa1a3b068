package segment_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// frames is what the golden segment holds: two transactions, one shape opened, a transaction not yet complete.
func frames() []segment.Frame {
	return []segment.Frame{
		{Visible: 0x16_B374D848, End: 0x16_B374D878, Messages: []segment.Message{
			{Offset: shape.At(0x16_B374D848, 0), Body: []byte(`{"key":"a"`)},
			{Offset: shape.At(0x16_B374D848, 3), Body: []byte{}},
		}, Postings: []segment.Posting{
			{Shape: 9, Refs: []segment.Ref{segment.NewRef(0, 0), segment.NewRef(1, segment.RefLast)}},
			{Shape: 3, Refs: []segment.Ref{segment.NewRef(1, segment.RefLast|segment.RefChunkEnd)}},
		}, Records: []segment.Record{{Kind: 1, Shape: 3, Body: []byte(`{}`)}}},
		{Visible: 0x16_B374D848, End: 0x16_B374D878, Messages: []segment.Message{
			{Offset: shape.At(0x17_00000000, 0), Body: []byte(`x`)},
		}, Postings: []segment.Posting{{Shape: 9, Refs: []segment.Ref{segment.NewRef(0, 0)}}}, Records: []segment.Record{}},
	}
}

func sealed() ([]byte, segment.Meta) {
	var b segment.Builder
	for _, f := range frames() {
		b.Add(&f)
	}
	return b.Seal(segment.Meta{Seq: 7, Epoch: 2, Writer: 0xfeed, Prev: 0xabad1dea})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: bytes differ from the golden file:\ngot  %x\nwant %x", name, got, want)
	}
}

func TestGolden(t *testing.T) {
	seg, _ := sealed()
	golden(t, "segment.golden", seg)
	fence, _ := segment.Fence(segment.Meta{Seq: 8, Epoch: 3, Writer: 0xbeef, Prev: 1})
	golden(t, "fence.golden", fence)
	golden(t, "page.golden", segment.AppendPage(nil, segment.Page{Last: true, Rows: 1, Body: []byte(`[{}]`)}))
}

func TestRoundTrip(t *testing.T) {
	b, meta := sealed()
	s, err := segment.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Meta != meta || meta.End != 0x16_B374D878 || meta.Fence {
		t.Errorf("meta %+v, want %+v", s.Meta, meta)
	}
	if want := frames(); !reflect.DeepEqual(s.Frames, want) {
		t.Errorf("frames\n got %+v\nwant %+v", s.Frames, want)
	}
	var got []shape.Offset
	s.Of(9, func(m *segment.Message, _ segment.Ref) bool {
		got = append(got, m.Offset)
		return true
	})
	want := []shape.Offset{shape.At(0x16_B374D848, 0), shape.At(0x16_B374D848, 3), shape.At(0x17_00000000, 0)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("shape 9 has %v, want %v", got, want)
	}
	s.Of(4, func(*segment.Message, segment.Ref) bool { t.Error("shape 4 has a message"); return false })
}

func TestFence(t *testing.T) {
	b, meta := segment.Fence(segment.Meta{Seq: 8, Epoch: 3, Writer: 1, Visible: 5, End: 6})
	s, err := segment.Decode(b)
	if err != nil || s.Meta != meta || !s.Fence || s.Visible != 0 || len(s.Frames) != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestEveryFlippedBit: no damaged segment or page is read as a good one.
func TestEveryFlippedBit(t *testing.T) {
	seg, _ := sealed()
	page := segment.AppendPage(nil, segment.Page{Rows: 2, Body: []byte(`[1,2]`)})
	for i := range 8 * len(seg) {
		b := bytes.Clone(seg)
		b[i/8] ^= 1 << (i % 8)
		if _, err := segment.Decode(b); !errors.Is(err, segment.ErrCorrupt) && !errors.Is(err, segment.ErrVersion) {
			t.Fatalf("segment bit %d: %v", i, err)
		}
	}
	for i := range 8 * len(page) {
		b := bytes.Clone(page)
		b[i/8] ^= 1 << (i % 8)
		if _, err := segment.DecodePage(b); !errors.Is(err, segment.ErrCorrupt) && !errors.Is(err, segment.ErrVersion) {
			t.Fatalf("page bit %d: %v", i, err)
		}
	}
	for n := range len(seg) {
		if _, err := segment.Decode(seg[:n]); err == nil {
			t.Fatalf("%d of %d bytes were enough", n, len(seg))
		}
	}
}

func FuzzDecode(f *testing.F) {
	seg, _ := sealed()
	f.Add(seg)
	f.Add(seg[:len(seg)/2])
	fence, _ := segment.Fence(segment.Meta{Seq: 1})
	f.Add(fence)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := segment.Decode(b)
		if err != nil {
			return
		}
		var again segment.Builder
		for i := range s.Frames {
			again.Add(&s.Frames[i])
		}
		if s.Fence {
			return
		}
		out, _ := again.Seal(s.Meta)
		if _, err := segment.Decode(out); err != nil {
			t.Errorf("encoded again: %v", err)
		}
	})
}

// FuzzDecodeFrame repairs the frame's length and checksum, so that the fuzzer reaches the payload.
func FuzzDecodeFrame(f *testing.F) {
	for _, fr := range frames() {
		f.Add(segment.AppendFrame(nil, &fr)[8:])
	}
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var fr segment.Frame
		if _, err := segment.DecodeFrame(segment.Reframe(payload), &fr); err != nil {
			return
		}
		var again segment.Frame
		if rest, err := segment.DecodeFrame(segment.AppendFrame(nil, &fr), &again); err != nil || len(rest) != 0 {
			t.Fatalf("encoded again: %v", err)
		}
		if !reflect.DeepEqual(fr, again) {
			t.Errorf("got %+v, want %+v", again, fr)
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	f.Add(segment.AppendPage(nil, segment.Page{Last: true, Rows: 1, Body: []byte("[]")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := segment.DecodePage(b); err == nil {
			if q, err := segment.DecodePage(segment.AppendPage(nil, p)); err != nil || !reflect.DeepEqual(p, q) {
				t.Errorf("got %+v, want %+v: %v", q, p, err)
			}
		}
	})
}

// TestAppendFrameAllocs: a frame is written into the caller's buffer and nowhere else.
func TestAppendFrameAllocs(t *testing.T) {
	f, buf := frames()[0], make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { segment.AppendFrame(buf, &f) }); n > 1 { // the frame header's zeroes
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 200)
	var f segment.Frame
	for i := range 100 {
		f.Messages = append(f.Messages, segment.Message{Offset: shape.At(pg.LSN(1<<32), uint64(2*i)), Body: body})
		f.Postings = append(f.Postings, segment.Posting{Shape: shape.ID(i), Refs: []segment.Ref{segment.NewRef(i, segment.RefLast)}})
	}
	buf := segment.AppendFrame(nil, &f)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = segment.AppendFrame(buf[:0], &f)
	}
}

func BenchmarkDecode(b *testing.B) {
	seg, _ := sealed()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := segment.Decode(seg); err != nil {
			b.Fatal(err)
		}
	}
}
