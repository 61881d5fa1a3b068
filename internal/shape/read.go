package shape

import (
	"bytes"
	"errors"
)

// Change is a message read back: what a compaction has to know of it. Everything in it is a view of the message.
type Change struct {
	Key       []byte // as a JSON string, with its quotes
	Operation string // insert, update or delete
	Value     []Member
	OldValue  []Member // of an update with full replica
	Headers   []byte   // from the operation on, to the end of the message
}

// Member is a member of a value: a column.
type Member struct {
	Name  []byte // as a JSON string, with its quotes
	Value []byte // as JSON
}

// ErrNotChange is the error of Read.
var ErrNotChange = errors.New("not a message of a shape's log: the object is damaged, or of another version")

// Read reads a message that this package rendered, be it a row of the snapshot or an unfinished message of the stream.
// It uses the memory that c has, and is strict about the order of members that all messages have.
func (c *Change) Read(b []byte) error {
	r := reader{b: b}
	r.token(`{"key":`)
	c.Key = r.json()
	r.token(`,"value":`)
	c.Value = r.members(c.Value[:0])
	c.OldValue = c.OldValue[:0]
	if r.next(`,"old_value":`) {
		c.OldValue = r.members(c.OldValue)
	}
	r.token(`,"headers":{`)
	c.Headers = r.b
	r.token(`"operation":`)
	op := r.json()
	switch {
	case r.bad || len(c.Key) < 2 || c.Key[0] != '"':
		return ErrNotChange
	case string(op) == `"insert"`:
		c.Operation = "insert"
	case string(op) == `"update"`:
		c.Operation = "update"
	case string(op) == `"delete"`:
		c.Operation = "delete"
	default:
		return ErrNotChange
	}
	return nil
}

// AppendChange appends the message that c was read from, with whatever has been changed in c.
func AppendChange(dst []byte, c *Change) []byte {
	dst = append(append(append(dst, `{"key":`...), c.Key...), `,"value":`...)
	dst = appendMembers(dst, c.Value)
	if len(c.OldValue) > 0 {
		dst = appendMembers(append(dst, `,"old_value":`...), c.OldValue)
	}
	return append(append(dst, `,"headers":{`...), c.Headers...)
}

// AppendAsRow appends the row that stands in c as a message of the snapshot.
func (p *Projection) AppendAsRow(dst []byte, c *Change) []byte {
	dst = append(append(append(dst, `{"key":`...), c.Key...), `,"value":`...)
	dst = appendMembers(dst, c.Value)
	dst = append(dst, `,"headers":{"operation":"insert",`...)
	dst = append(dst, p.relation...)
	return append(dst, "}}"...)
}

func appendMembers(dst []byte, members []Member) []byte {
	dst = append(dst, '{')
	for i := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, members[i].Name...), ':'), members[i].Value...)
	}
	return append(dst, '}')
}

// Overlay puts the members of over into value: in the place of those of the same name, else behind them.
func Overlay(value, over []Member) []Member {
	for i := range over {
		if at := indexMember(value, over[i].Name, i); at >= 0 {
			value[at].Value = over[i].Value
		} else {
			value = append(value, over[i])
		}
	}
	return value
}

// Underlay puts those members of under into value whose names it does not have.
func Underlay(value, under []Member) []Member {
	for i := range under {
		if indexMember(value, under[i].Name, i) < 0 {
			value = append(value, under[i])
		}
	}
	return value
}

// indexMember finds a name, most likely at or behind guess: members come in the order of the table.
func indexMember(members []Member, name []byte, guess int) int {
	for i := guess; i < len(members); i++ {
		if bytes.Equal(members[i].Name, name) {
			return i
		}
	}
	for i := range min(guess, len(members)) {
		if bytes.Equal(members[i].Name, name) {
			return i
		}
	}
	return -1
}

// Messages calls yield for each message of a page's body, a JSON array, until it returns an error.
func Messages(body []byte, yield func(message []byte) error) error {
	r := reader{b: body}
	r.token("[")
	for more := !r.next("]"); more && !r.bad; more = r.more("]") {
		m := r.json()
		if r.bad {
			break
		}
		if err := yield(m); err != nil {
			return err
		}
	}
	if r.bad || len(r.b) > 0 {
		return ErrNotChange
	}
	return nil
}

// reader takes JSON, without space around its tokens, off the front of bytes. After the first thing that is not there
// it is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) next(token string) bool {
	if len(r.b) < len(token) || string(r.b[:len(token)]) != token {
		return false
	}
	r.b = r.b[len(token):]
	return true
}

func (r *reader) token(token string) {
	if !r.next(token) {
		r.bad = true
	}
}

func (r *reader) members(dst []Member) []Member {
	r.token("{")
	for more := !r.next("}"); more && !r.bad; more = r.more("}") {
		var m Member
		m.Name = r.json()
		r.token(":")
		m.Value = r.json()
		if r.bad || m.Name[0] != '"' {
			r.bad = true
			break
		}
		dst = append(dst, m)
	}
	return dst
}

// more takes the comma before another element, or the end of all.
func (r *reader) more(end string) bool {
	if r.next(",") {
		return true
	}
	r.token(end)
	return false
}

// json takes a value. It finds where the value ends and does not check what is inside.
func (r *reader) json() []byte {
	n := 0
	if !r.bad {
		n = valueLen(r.b)
	}
	if n == 0 {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// valueLen is the length of the JSON value at the front of b; 0 if there is none.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringLen(b[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // behind a number or a word
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
		}
	}
	return 0
}

func stringLen(b []byte) int {
	for i := 1; i < len(b); {
		at := bytes.IndexByte(b[i:], '"')
		if at < 0 {
			return 0
		}
		i += at
		backslashes := 0
		for b[i-1-backslashes] == '\\' {
			backslashes++
		}
		i++
		if backslashes%2 == 0 {
			return i
		}
	}
	return 0
}
