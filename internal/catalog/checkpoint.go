package catalog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	checkpointMagic   = "SLCT"
	checkpointVersion = 1

	// manyShapes is from where on a checkpoint is written in shards, which a cold reader fetches one of.
	manyShapes = 1000
	manyShards = 64
)

// ShardsPrefix is where checkpoints lie.
const ShardsPrefix = "catalog/"

// ShardKey is the object key of one shard of a checkpoint.
func ShardKey(generation uint64, shard int) string {
	return fmt.Sprintf(ShardsPrefix+"%016x/%02x", generation, shard)
}

// checkpointHead is the part of a checkpoint that every shard repeats.
type checkpointHead struct {
	Seq     uint64 `json:"seq"`
	Epoch   uint64 `json:"epoch"`
	Visible pg.LSN `json:"visible"`
	End     pg.LSN `json:"end"`
	Source  Source `json:"source"`
	Shards  int    `json:"shards"`
	Shard   int    `json:"shard"`
}

// Checkpoint is the encoded state of one moment, ready to be stored.
type Checkpoint struct {
	Seq    uint64 // holds everything up to this segment
	Shards [][]byte
}

// Checkpoint encodes the state as it is now.
func (s *State) Checkpoint() Checkpoint {
	s.mu.RLock()
	defer s.mu.RUnlock()
	shards := 1
	if len(s.shapes) > manyShapes {
		shards = manyShards
	}
	c := Checkpoint{Seq: s.seq, Shards: make([][]byte, shards)}
	counts := make([]uint64, shards)
	bodies := make([][]byte, shards)
	tables := make([]packTable, shards)
	for _, id := range slices.Sorted(maps.Keys(s.shapes)) { // equal states have equal bytes
		n := int(uint64(id) % uint64(shards))
		counts[n]++
		bodies[n] = s.shapes[id].append(bodies[n], &tables[n])
	}
	for n := range c.Shards {
		head, err := json.Marshal(checkpointHead{s.seq, s.epoch, s.visible, s.end, s.source, shards, n})
		if err != nil {
			panic(err) // numbers and strings always encode
		}
		b := append([]byte(checkpointMagic), 0, 0, 0, 0)
		binary.LittleEndian.PutUint16(b[4:], checkpointVersion)
		b = appendBytes(b, head)
		b = tables[n].append(b)
		b = binary.AppendUvarint(b, counts[n])
		b = append(b, bodies[n]...)
		b = s.appendPending(b, n, shards)
		c.Shards[n] = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	return c
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendOffset(b []byte, o shape.Offset) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, o.Tx), o.Op)
}

// packTable numbers the packs that a shard refers to, from 1 on.
type packTable struct {
	numbers map[*Pack]uint64
	packs   []*Pack
}

func (t *packTable) number(p *Pack) uint64 {
	if n, ok := t.numbers[p]; ok {
		return n
	}
	if t.numbers == nil {
		t.numbers = make(map[*Pack]uint64)
	}
	t.packs = append(t.packs, p)
	t.numbers[p] = uint64(len(t.packs))
	return uint64(len(t.packs))
}

func (t *packTable) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.packs)))
	for _, p := range t.packs {
		b = binary.LittleEndian.AppendUint64(b, uint64(p.Shape))
		for _, v := range []uint64{uint64(p.Level), p.First, p.Last, uint64(p.Sum), uint64(p.Size), uint64(p.Index)} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func readPacks(r *segment.Reader, known map[Pack]*Pack) []*Pack {
	packs := make([]*Pack, r.Count(14))
	for i := range packs {
		p := Pack{
			Shape: shape.ID(r.U64()), Level: int(r.Uvarint()), First: r.Uvarint(), Last: r.Uvarint(), Sum: uint32(r.Uvarint()),
			Size: int64(r.Uvarint()), Index: int64(r.Uvarint()),
		}
		if known[p] == nil {
			known[p] = &p
		}
		packs[i] = known[p]
	}
	return packs
}

func (o *opened) append(b []byte, t *packTable) []byte {
	body, err := json.Marshal(openedBody{o.info, o.base})
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(o.info.ID))
	b = appendBytes(b, body)
	b = appendOffset(b, o.last)
	b = binary.AppendUvarint(binary.AppendUvarint(b, o.unclosed), o.history)
	b = binary.AppendUvarint(b, uint64(len(o.extents)))
	for _, e := range o.extents {
		if e.Pack != nil {
			b = binary.AppendUvarint(b, t.number(e.Pack)<<1|1)
		} else {
			b = binary.AppendUvarint(b, e.Seq<<1)
		}
		b = binary.AppendUvarint(appendOffset(appendOffset(b, e.First), e.Last), e.Bytes)
	}
	b = binary.AppendUvarint(b, uint64(len(o.chunks)))
	for _, c := range o.chunks {
		b = appendOffset(b, c)
	}
	b = binary.AppendUvarint(b, uint64(len(o.rebases)))
	for _, r := range o.rebases {
		b = appendOffset(binary.AppendUvarint(b, uint64(r.Gen)), r.At)
		for _, v := range []uint64{uint64(r.Made), r.Log, uint64(r.Pages), r.Rows, r.Bytes} {
			b = binary.AppendUvarint(b, v)
		}
	}
	if o.trimmed.IsBefore() {
		return append(b, 0)
	}
	return appendOffset(append(b, 1), o.trimmed)
}

func (s *State) appendPending(b []byte, shard, shards int) []byte {
	var mine []pendingPosting
	for _, e := range s.pending {
		if int(uint64(e.id)%uint64(shards)) == shard {
			mine = append(mine, e)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(mine)))
	for _, e := range mine {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.id))
		b = appendOffset(binary.AppendUvarint(b, e.seq), e.offset)
		v := uint64(e.bytes) << 1
		if e.chunkEnd {
			v |= 1
		}
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// Save stores the checkpoint as the given generation, which must be new.
func (c Checkpoint) Save(ctx context.Context, store object.Store, generation uint64) error {
	for n, b := range c.Shards {
		if _, err := store.Put(ctx, ShardKey(generation, n), b, object.Always()); err != nil {
			return fmt.Errorf("put catalog %s: %w", ShardKey(generation, n), err)
		}
	}
	return nil
}

// Load replaces the state by that of a checkpoint. Generation 0 is the state before the first segment.
func (s *State) Load(ctx context.Context, store object.Reader, generation uint64, shards int) error {
	loaded, packs := New(), make(map[Pack]*Pack)
	if generation != 0 {
		for n := range shards {
			key := ShardKey(generation, n)
			o, err := store.Get(ctx, key, object.Range{})
			if err != nil {
				return fmt.Errorf("get catalog %s: %w", key, err)
			}
			if err := loaded.decode(o.Body, shards, n, packs); err != nil {
				return fmt.Errorf("catalog %s: %w", key, err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq, s.epoch, s.visible, s.end, s.source = loaded.seq, loaded.epoch, loaded.visible, loaded.end, loaded.source
	s.shapes, s.pending, s.journal, s.intern = loaded.shapes, loaded.pending, nil, loaded.intern
	return nil
}

// decode adds a shard. packs are those of all shards so far: each is there once.
func (s *State) decode(b []byte, shards, shard int, packs map[Pack]*Pack) error {
	if len(b) < 12 || string(b[:4]) != checkpointMagic {
		return fmt.Errorf("%d bytes without its mark: %w", len(b), segment.ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != checkpointVersion {
		return fmt.Errorf("version %d: %w", v, segment.ErrVersion)
	}
	sumAt := len(b) - 4
	if crc32.Checksum(b[:sumAt], castagnoli) != binary.LittleEndian.Uint32(b[sumAt:]) {
		return fmt.Errorf("checksum differs: %w", segment.ErrCorrupt)
	}
	r := segment.NewReader(b[8:sumAt:sumAt])
	var head checkpointHead
	if err := json.Unmarshal(r.Bytes(), &head); err != nil || head.Shards != shards || head.Shard != shard {
		return fmt.Errorf("head: %w", segment.ErrCorrupt)
	}
	s.seq, s.epoch, s.visible, s.end, s.source = head.Seq, head.Epoch, head.Visible, head.End, head.Source
	table := readPacks(r, packs)
	for range r.Count(9) {
		if o := s.readOpened(r, table); o != nil {
			s.shapes[o.info.ID] = o
		}
	}
	for range r.Count(9) {
		e := pendingPosting{id: shape.ID(r.U64()), seq: r.Uvarint(), offset: readOffset(r)}
		v := r.Uvarint()
		e.bytes, e.chunkEnd = int(v>>1), v&1 != 0
		s.pending = append(s.pending, e)
	}
	if !r.Done() {
		return fmt.Errorf("body: %w", segment.ErrCorrupt)
	}
	return nil
}

// ReadShard reads one shard of a checkpoint by itself: which one of how many it is, and a state of only its shapes.
// The error wraps segment.ErrCorrupt or segment.ErrVersion.
func ReadShard(b []byte) (s *State, shard, shards int, err error) {
	if len(b) > 8 { // the head is read again, and checked, below
		var head checkpointHead
		_ = json.Unmarshal(segment.NewReader(b[8:]).Bytes(), &head)
		shard, shards = head.Shard, head.Shards
	}
	s = New()
	return s, shard, shards, s.decode(b, shards, shard, make(map[Pack]*Pack))
}

func readOffset(r *segment.Reader) shape.Offset {
	tx := r.Uvarint()
	return shape.At(pg.LSN(tx), r.Uvarint())
}

func (s *State) readOpened(r *segment.Reader, packs []*Pack) *opened {
	id := shape.ID(r.U64())
	info, base, err := s.intern.opened(id, r.Bytes())
	if err != nil || r.Failed() {
		r.Fail()
		return nil
	}
	o := &opened{info: info, base: base, last: readOffset(r), unclosed: r.Uvarint(), history: r.Uvarint()}
	o.extents = make([]Extent, r.Count(6))
	for i := range o.extents {
		v := r.Uvarint()
		o.extents[i] = Extent{Seq: v >> 1, First: readOffset(r), Last: readOffset(r), Bytes: r.Uvarint()}
		if v&1 == 0 {
			continue
		}
		if n := v >> 1; n == 0 || n > uint64(len(packs)) {
			r.Fail()
		} else {
			o.extents[i].Seq, o.extents[i].Pack = 0, packs[n-1]
		}
	}
	o.chunks = make([]shape.Offset, r.Count(2))
	for i := range o.chunks {
		o.chunks[i] = readOffset(r)
	}
	for range r.Count(8) {
		o.rebases = append(o.rebases, Rebase{Gen: uint32(r.Uvarint()), At: readOffset(r), Made: int64(r.Uvarint()), Log: r.Uvarint(),
			Base: Base{Pages: uint32(r.Uvarint()), Rows: r.Uvarint(), Bytes: r.Uvarint()}})
	}
	if r.Uvarint() != 0 {
		o.trimmed = readOffset(r)
	}
	return o
}

// Remove deletes a generation of checkpoints. That it is gone already is no error.
func Remove(ctx context.Context, store object.Store, generation uint64) error {
	shards, err := store.List(ctx, fmt.Sprintf(ShardsPrefix+"%016x/", generation), "", 0)
	if err != nil {
		return fmt.Errorf("list catalog %d: %w", generation, err)
	}
	for _, s := range shards {
		if err := store.Delete(ctx, s.Key); err != nil {
			return fmt.Errorf("delete catalog %d: %w", generation, err)
		}
	}
	return nil
}
