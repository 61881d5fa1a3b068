package grammar

import (
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Shapes come by the thousand that differ in constants alone: tenant_id = 1, tenant_id = 2. The parser takes 0.3 ms for
// each, which at a restart with 100,000 of them would be half a minute. So the tree of the first serves the others, with
// their constants put into the place of its own.

const (
	templatesMax = 256
	integerMax   = 9 // digits: longer ones may not fit into 32 bits, and then are another kind of constant
)

// template is the tree of a text and where its constants are.
type template struct {
	tree   *pgquery.Node
	places []place // of the constants, in the order of the text
}

// place leads from the root of a tree to a constant.
type place []step

type step struct {
	field protoreflect.FieldDescriptor
	index int // in a list
}

// constant is one in a text.
type constant struct {
	at   int
	text string // of a string, without its quotes
	str  bool
}

// scanConstants splits a text into what makes its template and its constants. ok is false if there is anything in it
// that could mean something else than it seems to.
func scanConstants(text string) (key string, constants []constant, ok bool) {
	var b strings.Builder
	word := false // the last byte belongs to a word or a number
	quoted := -1  // where the last constant string ended, while only space has come since
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			b.WriteByte(' ')
			word = false
			i++
			continue
		case c == '\'':
			end := stringEnd(text, i)
			if word || quoted >= 0 || end < 0 || i > 0 && text[i-1] == '&' {
				return "", nil, false // E'', U&'', or two that are one
			}
			constants = append(constants, constant{i, strings.ReplaceAll(text[i+1:end-1], "''", "'"), true})
			b.WriteString("'s'")
			i, word, quoted = end, true, end
			continue
		case c == '"':
			end := strings.IndexByte(text[i+1:], '"')
			if word || end < 0 {
				return "", nil, false
			}
			b.WriteString(text[i : i+end+2])
			i, word = i+end+2, true
		case c >= '0' && c <= '9' && !word:
			end := i
			for end < len(text) && text[end] >= '0' && text[end] <= '9' {
				end++
			}
			if end-i > integerMax || end < len(text) && (isWord(text[end]) || text[end] == '.') || i > 0 && text[i-1] == '.' {
				return "", nil, false
			}
			constants = append(constants, constant{i, text[i:end], false})
			b.WriteString("0")
			i, word = end, true
		case isWord(c):
			b.WriteByte(c)
			i++
			word = true
		case strings.IndexByte("=<>!,()+*%|~@?.:[]", c) >= 0:
			b.WriteByte(c)
			i++
			word = false
		case c == '$' && !word && i+1 < len(text) && text[i+1] >= '1' && text[i+1] <= '9':
			b.WriteByte(c)
			i++
			word = true
		default: // minus belongs to the constant behind it, slash may begin a comment, and who knows
			return "", nil, false
		}
		quoted = -1
	}
	return b.String(), constants, len(constants) > 0
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// stringEnd is where the string that begins at i ends, or -1.
func stringEnd(text string, i int) int {
	for i++; i < len(text); i++ {
		if text[i] != '\'' {
			continue
		}
		if i+1 == len(text) || text[i+1] != '\'' {
			return i + 1
		}
		i++
	}
	return -1
}

// newTemplate finds the constants in the tree of their text; nil if one is not where it should be.
func newTemplate(tree *pgquery.Node, constants []constant) *template {
	at := make(map[int]int, len(constants))
	for i, c := range constants {
		at[c.at+len(Prefix)] = i
	}
	t := &template{tree: tree, places: make([]place, len(constants))}
	found := 0
	var walk func(m protoreflect.Message, path place)
	walk = func(m protoreflect.Message, path place) {
		if c, ok := m.Interface().(*pgquery.A_Const); ok {
			if i, ok := at[int(c.Location)]; ok && t.places[i] == nil && kindIs(c, constants[i].str) {
				t.places[i] = append(place{}, path...)
				found++
			}
			return
		}
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.Kind() != protoreflect.MessageKind || f.IsMap():
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message(), append(path, step{f, i}))
				}
			default:
				walk(v.Message(), append(path, step{f, -1}))
			}
			return true
		})
	}
	walk(tree.ProtoReflect(), nil)
	if found != len(constants) {
		return nil
	}
	return t
}

func kindIs(c *pgquery.A_Const, str bool) bool {
	if str {
		return c.GetSval() != nil
	}
	return c.GetIval() != nil
}

// with returns the tree with other constants. Its locations are those of the text that the template was made from.
func (t *template) with(constants []constant) *pgquery.Node {
	tree := proto.CloneOf(t.tree)
	for i, c := range constants {
		m := tree.ProtoReflect()
		for _, s := range t.places[i] {
			v := m.Get(s.field)
			if s.index >= 0 {
				m = v.List().Get(s.index).Message()
			} else {
				m = v.Message()
			}
		}
		into, ok := m.Interface().(*pgquery.A_Const)
		if !ok {
			return nil
		}
		if c.str {
			into.Val = &pgquery.A_Const_Sval{Sval: &pgquery.String{Sval: c.text}}
			continue
		}
		n, err := strconv.ParseInt(c.text, 10, 32)
		if err != nil {
			return nil
		}
		into.Val = &pgquery.A_Const_Ival{Ival: &pgquery.Integer{Ival: int32(n)}}
	}
	return tree
}
