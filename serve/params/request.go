package params

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shapeline/shapeline/internal/shape"
)

// The texts of validation (protocol reference, 3.6).
const (
	textBlank       = "can't be blank"
	textInvalid     = "is invalid"
	textFormat      = "has invalid format"
	textHandle      = "can't be blank when offset != -1"
	textLiveBefore  = "can't be true when offset == -1"
	textLiveNow     = "can't be true when offset is 'now'"
	textSSE         = "can't be true unless live is also true"
	textParamKeys   = "Parameters can only use numbers as keys"
	textParamOrder  = "Parameters must be numbered sequentially, starting from 1"
	textDeleteBlank = "can't be blank when shape definition is missing"
	TextSubset      = "Subset snapshots are not supported by this version; read the whole shape with offset=-1 instead"
)

// Request is a request for a shape's log whose parameters are valid.
type Request struct {
	Offset     shape.Offset
	Handle     string // as it was sent; "" if the offset makes it meaningless
	Live, SSE  bool
	Cursor     uint64
	Definition shape.Definition
	Hash       string // of the definition
}

// Parse validates q in the order of the protocol reference, 3.6. Its error is Invalid.
func Parse(q *Query) (*Request, error) {
	if err := q.checkTypes(); err != nil {
		return nil, err
	}
	r := &Request{Live: q.flag("live", false)}
	r.SSE = q.flag("live_sse", q.flag("experimental_live_sse", false))
	text, ok := q.Text("offset")
	if !ok {
		return nil, Bad("offset", textBlank)
	}
	var err error
	if r.Offset, err = shape.ParseOffset(text); err != nil {
		return nil, Bad("offset", textFormat)
	}
	if !r.Offset.IsBefore() && !r.Offset.IsNow() {
		if r.Handle, ok = q.Text("handle"); !ok {
			return nil, Bad("handle", textHandle)
		}
	}
	switch {
	case r.Live && r.Offset.IsBefore():
		return nil, Bad("live", textLiveBefore)
	case r.Live && r.Offset.IsNow():
		return nil, Bad("live", textLiveNow)
	case r.SSE && !r.Live:
		return nil, Bad("live_sse", textSSE)
	}
	if _, ok := q.Text("table"); !ok {
		return nil, Bad("table", textBlank)
	}
	if r.Definition, err = q.definition(); err != nil {
		return nil, err
	}
	r.Hash = r.Definition.Hash()
	if q.Subset {
		return nil, Bad("subset", TextSubset)
	}
	if cursor, ok := q.Text("cursor"); ok && r.Live {
		r.Cursor = ParseCursor(cursor)
	}
	return r, nil
}

// checkTypes is the first step of validation: each parameter alone.
func (q *Query) checkTypes() error {
	if q.err != nil {
		return Bad("query", textInvalid)
	}
	wrong := Invalid{}
	for name, p := range q.params {
		isMap := p.entries != nil
		if p.nested || isMap != (name == "params") && (isMap || strings.TrimSpace(p.text) != "") ||
			strings.ContainsRune(p.text, 0) {
			wrong[name] = []string{textInvalid}
		}
		for _, v := range p.entries {
			if strings.ContainsRune(v, 0) {
				wrong[name] = []string{textInvalid}
			}
		}
	}
	oneOf := func(name string, allowed ...string) {
		if v, ok := q.Text(name); ok && !slices.Contains(allowed, v) {
			wrong[name] = []string{textInvalid}
		}
	}
	oneOf("replica", string(shape.ReplicaDefault), string(shape.ReplicaFull))
	oneOf("log", string(shape.LogFull), string(shape.LogChangesOnly))
	oneOf("experimental_compaction", "true", "false", "1", "0")
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// definition reads the parameters that make up a shape; table is not blank.
func (q *Query) definition() (shape.Definition, error) {
	var d shape.Definition
	var err error
	text, _ := q.Text("table")
	if d.Table, err = shape.ParseTable(text); err != nil {
		return d, Bad("table", err.Error())
	}
	if d.Columns, err = q.columns("columns"); err != nil {
		return d, err
	}
	queryable, err := q.columns("queryable_columns")
	if err != nil {
		return d, err
	}
	if d.Columns == nil {
		d.Columns = queryable
	} else if queryable != nil {
		var outside []string
		for _, c := range d.Columns {
			if !slices.Contains(queryable, c) {
				outside = append(outside, c)
			}
		}
		if outside != nil {
			return d, Bad("columns", "The following columns are not queryable: "+strings.Join(outside, ", "))
		}
	}
	if d.Params, err = q.numbered(); err != nil {
		return d, err
	}
	d.Where, _ = q.Text("where")
	replica, _ := q.Text("replica")
	d.Replica = shape.Replica(replica)
	log, _ := q.Text("log")
	d.Log = shape.LogMode(log)
	return d.Canonical(), nil
}

func (q *Query) columns(name string) ([]string, error) {
	text, ok := q.Text(name)
	if !ok {
		return nil, nil
	}
	cols, err := shape.ParseColumns(text)
	if err != nil {
		return nil, Bad(name, err.Error())
	}
	return cols, nil
}

// numbered returns the values of params[1], params[2], ...
func (q *Query) numbered() ([]string, error) {
	p := q.params["params"]
	if p == nil || len(p.entries) == 0 {
		return nil, nil
	}
	values := make([]string, len(p.entries))
	seen := make([]bool, len(p.entries))
	inOrder := true
	for key, v := range p.entries {
		n, err := strconv.Atoi(key)
		if err != nil {
			return nil, Bad("params", textParamKeys)
		}
		if n < 1 || n > len(values) || seen[n-1] {
			inOrder = false
			continue
		}
		values[n-1], seen[n-1] = v, true
	}
	if !inOrder {
		return nil, Bad("params", textParamOrder)
	}
	return values, nil
}

// Deletion is a request to drop a shape, by handle, definition or both.
type Deletion struct {
	Handle     string            // as it was sent; may be ""
	Definition *shape.Definition // may be nil
}

// ParseDeletion validates the parameters of DELETE (protocol reference, 2.6). Its error is Invalid.
func ParseDeletion(q *Query) (*Deletion, error) {
	if err := q.checkTypes(); err != nil {
		return nil, err
	}
	for _, name := range []string{"live", "live_sse", "experimental_live_sse"} {
		if v, ok := q.Text(name); ok && !slices.Contains([]string{"true", "false", "1", "0"}, v) {
			return nil, Bad(name, textInvalid)
		}
	}
	d := &Deletion{}
	d.Handle, _ = q.Text("handle")
	if _, ok := q.Text("table"); ok {
		def, err := q.definition()
		if err != nil {
			return nil, err
		}
		d.Definition = &def
	}
	if d.Handle == "" && d.Definition == nil {
		return nil, Bad("handle", textDeleteBlank)
	}
	return d, nil
}

// Invalid is what is wrong with a request, by parameter.
type Invalid map[string][]string

// Bad is Invalid with one parameter.
func Bad(field string, texts ...string) Invalid { return Invalid{field: texts} }

// Error implements error.
func (i Invalid) Error() string { return fmt.Sprintf("invalid request: %v", map[string][]string(i)) }

// cursorMax bounds the cursors that clients may send: what JavaScript counts exactly.
const cursorMax = 1<<53 - 1

// ParseCursor reads the cursor that a client echoes; anything but a number is 0.
func ParseCursor(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > cursorMax {
		return 0
	}
	return n
}
