package audit

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/internal/shapelog"
)

var errUnknownKey = errors.New("is no key of a bucket of this version; nothing refers to it")

// verify checks an object by itself and against what the log says of it.
func verify(kind Kind, key string, b []byte, expected []expectation) error {
	switch kind {
	case KindControl, KindRequest:
		return segment.CheckJSON(b)
	case KindDefinition:
		return verifyDefinition(key, b)
	case KindSegment:
		return verifySegment(key, b, expected)
	case KindPack:
		return verifyPack(key, b, expected)
	case KindPage:
		return verifyPage(key, b, expected)
	case KindCheckpoint:
		return verifyShard(key, b)
	}
	return errUnknownKey
}

func verifyDefinition(key string, b []byte) error {
	if err := segment.CheckJSON(b); err != nil {
		return err
	}
	var p catalog.Pointer
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("not a definition: %w", err)
	}
	if want := catalog.DefinitionsPrefix + p.Definition.Hash(); want != key {
		return fmt.Errorf("its definition belongs under %s", want)
	}
	return nil
}

func verifySegment(key string, b []byte, expected []expectation) error {
	seq, err := shapelog.ParseSegmentKey(key)
	if err != nil {
		return errUnknownKey
	}
	s, err := segment.Decode(b)
	if err != nil {
		return err
	}
	if s.Seq != seq {
		return fmt.Errorf("says it is segment %d", s.Seq)
	}
	return holdAll(s, expected)
}

// verifyPack checks a pack of level 1, which has the form of a segment.
func verifyPack(key string, b []byte, expected []expectation) error {
	s, err := segment.Decode(b)
	if err != nil {
		return err
	}
	p := catalog.Pack{Level: 1, Last: s.Seq, Sum: s.Sum}
	if _, err := fmt.Sscanf(key, packPrefix+"01/%016x-", &p.First); err != nil {
		return errUnknownKey
	}
	if want := p.Key(); want != key {
		return fmt.Errorf("says it is %s", want)
	}
	return holdAll(s, expected)
}

func holdAll(s *segment.Segment, expected []expectation) error {
	for _, e := range expected {
		if err := e.hold(func(yield func(shape.Offset) bool) {
			s.Of(e.id, func(m *segment.Message, _ segment.Ref) bool { return yield(m.Offset) })
		}); err != nil {
			return err
		}
	}
	return nil
}

// hold checks that the first and the last entry that the log speaks of are there.
func (e *expectation) hold(offsets func(yield func(shape.Offset) bool)) error {
	var first, last bool
	for o := range offsets {
		first = first || o == e.first
		last = last || o == e.last
	}
	if !first || !last {
		return fmt.Errorf("holds not all entries of shape %s from %s to %s", e.id, e.first, e.last)
	}
	return nil
}

func verifyPage(key string, b []byte, expected []expectation) error {
	if _, _, ok := parsePageKey(key); !ok {
		return errUnknownKey
	}
	p, err := segment.DecodePage(b)
	if err != nil {
		return err
	}
	for _, e := range expected {
		if e.isPage && e.lastPage != p.Last {
			return fmt.Errorf("says that the base ends with it: %t; the log says %t", p.Last, e.lastPage)
		}
	}
	return nil
}

func verifyShard(key string, b []byte) error {
	_, shard, ok := parseShardKey(key)
	if !ok {
		return errUnknownKey
	}
	_, got, _, err := catalog.ReadShard(b)
	if err != nil {
		return err
	}
	if got != shard {
		return fmt.Errorf("says it is shard %d", got)
	}
	return nil
}
