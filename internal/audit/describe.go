package audit

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

// Description is an object for people: what it is, and its parts. It encodes as JSON.
type Description struct {
	Key   string  `json:"key"`
	Kind  Kind    `json:"kind"`
	Bytes int     `json:"bytes"`
	Head  []Field `json:"head"`
	Parts []Part  `json:"parts,omitempty"`
}

// Field is something that an object says of itself.
type Field struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

// Part is a part of an object: a frame, a shape, a body.
type Part struct {
	Title string   `json:"title"`
	Lines []string `json:"lines"`
}

// Describe reads an object. The error says what is wrong with it; as much as could be read is described all the same.
func Describe(key string, b []byte) (*Description, error) {
	d := &Description{Key: key, Kind: KindOf(key), Bytes: len(b)}
	switch d.Kind {
	case KindControl, KindDefinition, KindRequest:
		d.Parts = []Part{{Title: "JSON", Lines: []string{string(b)}}}
		return d, verify(d.Kind, key, b, nil)
	case KindSegment, KindPack:
		return d, d.segment(b)
	case KindPage:
		return d, d.page(b)
	case KindCheckpoint:
		return d, d.checkpoint(b)
	}
	return d, errUnknownKey
}

func (d *Description) head(name string, value any) { d.Head = append(d.Head, Field{name, value}) }

func (d *Description) segment(b []byte) error {
	s, err := segment.Decode(b)
	if err != nil {
		return err
	}
	d.head("seq", s.Seq)
	d.head("epoch", s.Epoch)
	d.head("writer", fmt.Sprintf("%016x", s.Writer))
	d.head("fence", s.Fence)
	d.head("visible", s.Visible.String())
	d.head("end", s.End.String())
	d.head("previous checksum", fmt.Sprintf("%08x", s.Prev))
	d.head("checksum", fmt.Sprintf("%08x", s.Sum))
	for i := range s.Frames {
		f := &s.Frames[i]
		p := Part{Title: fmt.Sprintf("frame %d, visible %s, end %s", i, f.Visible, f.End)}
		for _, r := range f.Records {
			p.Lines = append(p.Lines, fmt.Sprintf("record %s shape %s %s", catalog.RecordKind(r.Kind), r.Shape, r.Body))
		}
		for j := range f.Messages {
			m := &f.Messages[j]
			p.Lines = append(p.Lines, fmt.Sprintf("message %d at %s %s", j, m.Offset, shape.AppendEnd(append([]byte(nil), m.Body...), false)))
		}
		for j := range f.Postings {
			line := fmt.Sprintf("posting shape %s messages", f.Postings[j].Shape)
			for _, r := range f.Postings[j].Refs {
				line += fmt.Sprintf(" %d", r.Message())
				if r.Last() {
					line += "(last)"
				}
				if r.ChunkEnd() {
					line += "(ends chunk)"
				}
			}
			p.Lines = append(p.Lines, line)
		}
		d.Parts = append(d.Parts, p)
	}
	return verify(d.Kind, d.Key, b, nil)
}

func (d *Description) page(b []byte) error {
	h, n, ok := parsePageKey(d.Key)
	if !ok {
		return errUnknownKey
	}
	p, err := segment.DecodePage(b)
	if err != nil {
		return err
	}
	d.head("handle", h.String())
	d.head("page", n)
	d.head("rows", p.Rows)
	d.head("last", p.Last)
	var items []json.RawMessage
	if err := json.Unmarshal(p.Body, &items); err != nil {
		return fmt.Errorf("the body is not a JSON array: %w", err)
	}
	part := Part{Title: "messages"}
	for _, i := range items {
		part.Lines = append(part.Lines, string(i))
	}
	d.Parts = []Part{part}
	return nil
}

func (d *Description) checkpoint(b []byte) error {
	s, shard, shards, err := catalog.ReadShard(b)
	if err != nil {
		return err
	}
	seq, epoch, visible, end := s.Position()
	generation, _, _ := parseShardKey(d.Key)
	d.head("generation", fmt.Sprintf("%016x", generation))
	d.head("shard", fmt.Sprintf("%d of %d", shard, shards))
	d.head("seq", seq)
	d.head("epoch", epoch)
	d.head("visible", visible.String())
	d.head("end", end.String())
	d.head("source", s.Source())
	for _, sh := range s.Shapes() {
		p := Part{Title: fmt.Sprintf("shape %s, newest handle %s, last %s", sh.ID, sh.Newest(), sh.Last)}
		definition, err := json.Marshal(sh.Definition)
		if err != nil {
			return fmt.Errorf("encode the definition: %w", err)
		}
		p.Lines = append(p.Lines, "definition "+string(definition))
		if sh.Base != nil {
			p.Lines = append(p.Lines, fmt.Sprintf("base 0: %d pages, %d rows, %d bytes", sh.Base.Pages, sh.Base.Rows, sh.Base.Bytes))
		}
		for _, r := range sh.Rebases {
			p.Lines = append(p.Lines, fmt.Sprintf("base %d at %s: %d pages, %d rows, %d bytes", r.Gen, r.At, r.Pages, r.Rows, r.Bytes))
		}
		for _, x := range s.Extents(sh.ID) {
			key := shapelog.SegmentKey(x.Seq)
			if x.Pack != nil {
				key = x.Pack.Key()
			}
			p.Lines = append(p.Lines, fmt.Sprintf("entries %s to %s in %s", x.First, x.Last, key))
		}
		d.Parts = append(d.Parts, p)
	}
	return nil
}

// WriteText prints d.
func (d *Description) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s: %s, %d bytes\n", d.Key, d.Kind, d.Bytes); err != nil {
		return err
	}
	for _, f := range d.Head {
		if _, err := fmt.Fprintf(w, "  %s: %v\n", f.Name, f.Value); err != nil {
			return err
		}
	}
	for _, p := range d.Parts {
		if _, err := fmt.Fprintf(w, "\n%s\n", p.Title); err != nil {
			return err
		}
		for _, l := range p.Lines {
			if _, err := fmt.Fprintf(w, "  %s\n", l); err != nil {
				return err
			}
		}
	}
	return nil
}
