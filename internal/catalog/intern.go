package catalog

import (
	"encoding/json"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// interner lets shapes share what is equal in their opened records: of 100,000 shapes, most are of the same few tables
// with the same columns.
type interner struct {
	relations map[string]*pg.Relation
	columns   map[string][]int
	schemas   map[string]json.RawMessage
}

// openedRaw is an openedBody with what may be shared still encoded.
type openedRaw struct {
	Definition shape.Definition `json:"definition"`
	Canonical  string           `json:"canonical"`
	Relation   json.RawMessage  `json:"relation"`
	Columns    json.RawMessage  `json:"columns"`
	Schema     json.RawMessage  `json:"schema"`
	Snapshot   pg.Snapshot      `json:"snapshot"`
	Base       *Base            `json:"base"`
}

// opened reads the body of an opened record.
func (in *interner) opened(id shape.ID, b []byte) (*Info, *Base, error) {
	var raw openedRaw
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, nil, err
	}
	i := &Info{ID: id, Definition: raw.Definition, Canonical: raw.Canonical, Snapshot: raw.Snapshot}
	var err error
	if i.Relation, err = shared(&in.relations, raw.Relation); err != nil {
		return nil, nil, err
	}
	if i.Columns, err = shared(&in.columns, raw.Columns); err != nil {
		return nil, nil, err
	}
	if i.Schema, err = shared(&in.schemas, raw.Schema); err != nil {
		return nil, nil, err
	}
	if !i.valid() {
		return nil, nil, segment.ErrCorrupt
	}
	return i, raw.Base, nil
}

// shared decodes b, or returns what equal bytes were decoded to before.
func shared[T any](known *map[string]T, b json.RawMessage) (v T, err error) {
	if len(b) == 0 {
		return v, nil
	}
	if v, ok := (*known)[string(b)]; ok {
		return v, nil
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, err
	}
	if *known == nil {
		*known = make(map[string]T)
	}
	(*known)[string(b)] = v
	return v, nil
}
