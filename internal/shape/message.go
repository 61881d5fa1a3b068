package shape

import (
	"bytes"
	"strconv"

	"github.com/shapeline/shapeline/internal/pg"
)

// Projection renders rows of one relation for all shapes with the same columns and replica mode. It is immutable.
//
// Messages of the stream are rendered without their end, because whether a change is the last of its transaction
// differs by shape: AppendEnd completes them. Snapshot rows and control messages are complete.
type Projection struct {
	full     bool
	columns  []column // the selected ones, in table order
	key      []int    // places of the key columns, in key order
	keyStart []byte   // `{"key":"` and the relation part, JSON-escaped
	relation []byte   // `"relation":["schema","table"]`
}

type column struct {
	at    int
	isKey bool
	name  []byte // `"name":`
}

// NewProjection returns the projection of rel on the columns at the given places, ascending. The key is made of
// rel.Key whatever the selection.
func NewProjection(rel *pg.Relation, places []int, replica Replica) *Projection {
	p := &Projection{full: replica == ReplicaFull, key: rel.Key()}
	isKey := make(map[int]bool)
	for _, at := range p.key {
		isKey[at] = true
	}
	for _, at := range places {
		name := append(appendJSON(nil, []byte(rel.Columns[at].Name)), ':')
		p.columns = append(p.columns, column{at: at, isKey: isKey[at], name: name})
	}
	var raw []byte
	raw = append(raw, '"')
	raw = append(raw, escapeKeyName(rel.Schema)...)
	raw = append(raw, `"."`...)
	raw = append(raw, escapeKeyName(rel.Name)...)
	raw = append(raw, '"')
	quoted := appendJSON(nil, raw)
	p.keyStart = append([]byte(`{"key":`), quoted[:len(quoted)-1]...)
	p.relation = append(p.relation, `"relation":[`...)
	p.relation = appendJSON(p.relation, []byte(rel.Schema))
	p.relation = append(p.relation, ',')
	p.relation = appendJSON(p.relation, []byte(rel.Name))
	p.relation = append(p.relation, ']')
	return p
}

// escapeKeyName doubles the two characters that delimit a key.
func escapeKeyName(s string) []byte {
	b := bytes.ReplaceAll([]byte(s), []byte(`"`), []byte(`""`))
	return bytes.ReplaceAll(b, []byte(`/`), []byte(`//`))
}

// AppendRow appends the message of a row of the snapshot.
func (p *Projection) AppendRow(dst []byte, row pg.Row) []byte {
	dst = p.appendKey(dst, row)
	dst = p.appendValue(dst, `,"value":{`, row, nil, valueAll)
	dst = append(dst, `},"headers":{"operation":"insert",`...)
	dst = append(dst, p.relation...)
	return append(dst, "}}"...)
}

// Place is where in the stream a change stands.
type Place struct {
	XID pg.XID
	LSN pg.LSN // of the commit
	Op  uint64 // position inside the transaction
}

// Offset is the log offset of the message at p.
func (p Place) Offset() Offset { return At(p.LSN, p.Op) }

// AppendInsert appends the unfinished message of a row that enters the shape. from is the row whose key this one
// had before, or nil.
func (p *Projection) AppendInsert(dst []byte, at Place, row, from pg.Row) []byte {
	dst = p.appendKey(dst, row)
	dst = p.appendValue(dst, `,"value":{`, row, nil, valueAll)
	dst = p.appendHeaders(dst, "insert", at)
	return p.appendKeyChange(dst, `,"key_change_from":`, from)
}

// AppendDelete appends the unfinished message of a row that leaves the shape. to is the row that has the key from
// now on, or nil.
func (p *Projection) AppendDelete(dst []byte, at Place, row, to pg.Row) []byte {
	dst = p.appendKey(dst, row)
	what := valueKey
	if p.full {
		what = valueAll
	}
	dst = p.appendValue(dst, `,"value":{`, row, nil, what)
	dst = p.appendHeaders(dst, "delete", at)
	return p.appendKeyChange(dst, `,"key_change_to":`, to)
}

// AppendUpdate appends the unfinished message of a row that stays in the shape under its key.
func (p *Projection) AppendUpdate(dst []byte, at Place, old, row pg.Row) []byte {
	dst = p.appendKey(dst, row)
	if p.full {
		dst = p.appendValue(dst, `,"value":{`, row, nil, valueAll)
		dst = append(dst, '}')
		dst = p.appendValue(dst, `,"old_value":{`, old, row, valueChanged)
	} else {
		dst = p.appendValue(dst, `,"value":{`, row, old, valueKeyOrChanged)
	}
	return p.appendHeaders(dst, "update", at)
}

// AppendEnd completes an unfinished message. last marks the last change of the transaction in the shape.
func AppendEnd(dst []byte, last bool) []byte {
	if last {
		dst = append(dst, `,"last":true`...)
	}
	return append(dst, "}}"...)
}

// Changes reports whether old and row differ in a selected column.
func (p *Projection) Changes(old, row pg.Row) bool {
	for i := range p.columns {
		if at := p.columns[i].at; differ(old[at], row[at]) {
			return true
		}
	}
	return false
}

// Rekeys reports whether old and row have different keys.
func (p *Projection) Rekeys(old, row pg.Row) bool {
	for _, at := range p.key {
		if differ(old[at], row[at]) {
			return true
		}
	}
	return false
}

func differ(a, b []byte) bool { return (a == nil) != (b == nil) || !bytes.Equal(a, b) }

type valueKind int

const (
	valueAll valueKind = iota
	valueKey
	valueChanged
	valueKeyOrChanged
)

// appendValue appends start and the members of row that kind selects, comparing with other, but no closing brace.
func (p *Projection) appendValue(dst []byte, start string, row, other pg.Row, kind valueKind) []byte {
	dst = append(dst, start...)
	first := true
	for i := range p.columns {
		c := &p.columns[i]
		take := kind == valueAll || c.isKey && kind != valueChanged
		if !take && (kind == valueKey || !differ(row[c.at], other[c.at])) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, c.name...)
		if v := row[c.at]; v == nil {
			dst = append(dst, "null"...)
		} else {
			dst = appendJSON(dst, v)
		}
	}
	return dst
}

func (p *Projection) appendHeaders(dst []byte, operation string, at Place) []byte {
	dst = append(dst, `},"headers":{"operation":"`...)
	dst = append(dst, operation...)
	dst = append(dst, `","txids":[`...)
	dst = strconv.AppendUint(dst, uint64(at.XID), 10)
	dst = append(dst, `],`...)
	dst = append(dst, p.relation...)
	dst = append(dst, `,"lsn":"`...)
	dst = strconv.AppendUint(dst, uint64(at.LSN), 10)
	dst = append(dst, `","op_position":`...)
	return strconv.AppendUint(dst, at.Op, 10)
}

func (p *Projection) appendKeyChange(dst []byte, member string, row pg.Row) []byte {
	if row == nil {
		return dst
	}
	dst = append(dst, member...)
	return p.appendKeyValue(append(dst, p.keyStart[len(`{"key":`):]...), row)
}

// appendKey appends the opening of a message up to and including its key.
func (p *Projection) appendKey(dst []byte, row pg.Row) []byte {
	return p.appendKeyValue(append(dst, p.keyStart...), row)
}

func (p *Projection) appendKeyValue(dst []byte, row pg.Row) []byte {
	for _, at := range p.key {
		dst = append(dst, '/')
		v := row[at]
		if v == nil {
			dst = append(dst, '_')
			continue
		}
		dst = append(dst, '\\', '"')
		for {
			i := bytes.IndexByte(v, '/')
			if i < 0 {
				break
			}
			dst = appendEscaped(dst, v[:i+1])
			dst = append(dst, '/')
			v = v[i+1:]
		}
		dst = appendEscaped(dst, v)
		dst = append(dst, '\\', '"')
	}
	return append(dst, '"')
}

// AppendSnapshotEnd appends the message that ends the snapshot part of a log.
func AppendSnapshotEnd(dst []byte, s pg.Snapshot) []byte {
	dst = append(dst, `{"headers":{"control":"snapshot-end","xmin":"`...)
	dst = strconv.AppendUint(dst, s.Xmin, 10)
	dst = append(dst, `","xmax":"`...)
	dst = strconv.AppendUint(dst, s.Xmax, 10)
	dst = append(dst, `","xip_list":[`...)
	for i, x := range s.Xip {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = strconv.AppendUint(dst, x, 10)
		dst = append(dst, '"')
	}
	return append(dst, "]}}"...)
}

// AppendUpToDate appends the message that ends an answer which reached the end of the log.
func AppendUpToDate(dst []byte, seen pg.LSN) []byte {
	dst = append(dst, `{"headers":{"control":"up-to-date","global_last_seen_lsn":"`...)
	dst = strconv.AppendUint(dst, uint64(seen), 10)
	return append(dst, `"}}`...)
}

// appendJSON appends s as a JSON string. s is the UTF-8 that Postgres sent.
func appendJSON(dst, s []byte) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, s)
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

func appendEscaped(dst, s []byte) []byte {
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !mustEscape[c] {
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		from = i + 1
	}
	return append(dst, s[from:]...)
}

var mustEscape = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()
