package harness

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

// Row is one row as the wire has it: column to text, nil for NULL.
type Row map[string]*string

// String prints the columns in the order of their names; it is the same for equal rows only.
func (r Row) String() string {
	var b strings.Builder
	for i, col := range slices.Sorted(maps.Keys(r)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		if v := r[col]; v == nil {
			fmt.Fprintf(&b, "%q:null", col)
		} else {
			fmt.Fprintf(&b, "%q:%q", col, *v)
		}
	}
	return b.String()
}

// Sum is a number of the row's content, equal for equal rows. Numbers of rows are added up, wrapping, to the number
// of a set of rows, whatever the order.
func (r Row) Sum() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.String())) // a hash takes everything
	return h.Sum64()
}

// Sum is the number of a set of rows: what Commit.Sum and State.Sum are compared with.
func Sum(rows []Row) uint64 {
	var sum uint64
	for _, r := range rows {
		sum += r.Sum()
	}
	return sum
}

// message is one element of a body. Strings and numbers are told apart, as clients do.
type message struct {
	Key      *string `json:"key"`
	Value    Row     `json:"value"`
	OldValue Row     `json:"old_value"`
	Headers  struct {
		Control    string   `json:"control"`
		Operation  string   `json:"operation"`
		Relation   []string `json:"relation"`
		Txids      []uint32 `json:"txids"`
		LSN        *string  `json:"lsn"`
		OpPosition *uint64  `json:"op_position"`
		Last       bool     `json:"last"`
		KeyTo      string   `json:"key_change_to"`
		KeyFrom    string   `json:"key_change_from"`
		GlobalLSN  *string  `json:"global_last_seen_lsn"`
		Xmin       *string  `json:"xmin"`
		Xmax       *string  `json:"xmax"`
		XipList    []string `json:"xip_list"`
	} `json:"headers"`
}

// follower holds what the messages so far allow the next ones to be.
type follower struct {
	rows    map[string]Row
	full    bool // replica=full
	lenient bool // log=changes_only: rows are known only once they change

	last        shape.Offset // of the last change from replication; -1: none
	open        bool         // the transaction of last has not had its last change
	claimed     uint64       // the highest global_last_seen_lsn so far
	snapshotEnd bool
}

// checkAnswer holds an answer's headers against its body: what it says about the end is what the body ends with.
func (f *follower) checkAnswer(asked shape.Offset, a answer) error {
	if a.offset.Compare(asked) < 0 {
		return fmt.Errorf("the offset goes back from %s to %s", asked, a.offset)
	}
	if !a.upToDate && a.offset.Compare(asked) == 0 {
		return fmt.Errorf("neither up to date nor behind %s", asked)
	}
	if a.upToDate && asked.IsBefore() {
		return errors.New("up to date at the offset -1")
	}
	var last *message
	for i := range a.messages {
		m := &a.messages[i]
		if m.Headers.Control == "up-to-date" && (!a.upToDate || i != len(a.messages)-1) {
			return fmt.Errorf("message %d is an up-to-date out of place", i)
		}
		if m.Headers.LSN != nil {
			last = m
		}
	}
	if a.upToDate && (len(a.messages) == 0 || a.messages[len(a.messages)-1].Headers.Control != "up-to-date") {
		return errors.New("electric-up-to-date without the message")
	}
	if last == nil {
		return nil
	}
	end, err := offsetOf(last)
	if err != nil {
		return err
	}
	if a.offset.Compare(end) != 0 {
		return fmt.Errorf("electric-offset is %s, the body ends at %s", a.offset, end)
	}
	return nil
}

func offsetOf(m *message) (shape.Offset, error) {
	lsn, err := strconv.ParseUint(*m.Headers.LSN, 10, 64)
	if err != nil || lsn == 0 {
		return shape.Offset{}, fmt.Errorf("lsn is %q", *m.Headers.LSN)
	}
	if m.Headers.OpPosition == nil || len(m.Headers.Txids) != 1 {
		return shape.Offset{}, errors.New("a change with lsn, but without op_position or with another count of txids")
	}
	return shape.At(pg.LSN(lsn), *m.Headers.OpPosition), nil
}

// control checks a control message.
func (f *follower) control(m *message) error {
	h := &m.Headers
	if m.Key != nil || m.Value != nil {
		return errors.New("a control message with a key or a value")
	}
	switch h.Control {
	case "snapshot-end":
		if h.Xmin == nil || h.Xmax == nil || h.XipList == nil {
			return errors.New("snapshot-end without xmin, xmax, xip_list")
		}
		if f.snapshotEnd || !f.last.IsBefore() {
			return errors.New("a snapshot-end after the snapshot")
		}
		f.snapshotEnd = true
		return nil
	case "up-to-date":
		if h.GlobalLSN == nil {
			return errors.New("up-to-date without global_last_seen_lsn")
		}
		lsn, err := strconv.ParseUint(*h.GlobalLSN, 10, 64)
		if err != nil {
			return fmt.Errorf("global_last_seen_lsn is %q", *h.GlobalLSN)
		}
		if f.open {
			return fmt.Errorf("up to date inside the transaction at %s", f.last)
		}
		if !f.snapshotEnd {
			return errors.New("up to date without a snapshot-end")
		}
		if lsn < f.last.Tx {
			return fmt.Errorf("global_last_seen_lsn is %d, less than the %s before it", lsn, f.last)
		}
		// A slower reader of the log may answer for an earlier time than another, so the number may go back
		// between servers; what it has once said binds.
		f.claimed = max(f.claimed, lsn)
		return nil
	}
	return fmt.Errorf("a control message %q in a 200", h.Control)
}

// change checks and applies a change and returns what it adds to the sum of all rows.
func (f *follower) change(asked shape.Offset, m *message) (sum uint64, err error) {
	h := &m.Headers
	if m.Key == nil || m.Value == nil || len(h.Relation) != 2 {
		return 0, errors.New("a change without key, value or relation")
	}
	if h.LSN == nil {
		if err := f.snapshotRow(asked, m); err != nil {
			return 0, err
		}
	} else if err := f.advance(asked, m); err != nil {
		return 0, err
	}
	old, known := f.rows[*m.Key]
	if !f.lenient && known == (h.Operation == "insert") {
		return 0, fmt.Errorf("%s of the key %s: known is %v", h.Operation, *m.Key, known)
	}
	if known {
		sum -= old.Sum()
	}
	switch h.Operation {
	case "insert":
		f.rows[*m.Key] = m.Value
		return sum + m.Value.Sum(), nil
	case "update":
		if !known { // lenient
			return 0, nil
		}
		row, err := f.updated(old, m)
		if err != nil {
			return 0, fmt.Errorf("update of the key %s: %w", *m.Key, err)
		}
		f.rows[*m.Key] = row
		return sum + row.Sum(), nil
	case "delete":
		delete(f.rows, *m.Key)
		return sum, nil
	}
	return 0, fmt.Errorf("operation %q", h.Operation)
}

// updated is old with the update m applied.
func (f *follower) updated(old Row, m *message) (Row, error) {
	row := maps.Clone(old)
	for col, v := range m.Value {
		if _, ok := old[col]; !ok {
			return nil, fmt.Errorf("column %q is not in the row", col)
		}
		row[col] = v
	}
	if f.full && len(m.Value) != len(old) {
		return nil, fmt.Errorf("replica=full with %d of %d columns", len(m.Value), len(old))
	}
	if f.full == (m.OldValue == nil) {
		return nil, errors.New("old_value belongs to replica=full, and there to every update")
	}
	for col, v := range m.OldValue {
		if was := old[col]; (v == nil) != (was == nil) || v != nil && *v != *was {
			return nil, fmt.Errorf("old_value of %q is not what the row had", col)
		}
	}
	return row, nil
}

// snapshotRow checks a change that has no lsn.
func (f *follower) snapshotRow(asked shape.Offset, m *message) error {
	if h := &m.Headers; h.Operation != "insert" || h.Txids != nil || h.OpPosition != nil || h.Last {
		return errors.New("a row of the snapshot that is not a plain insert")
	}
	if f.lenient {
		return errors.New("a row of the snapshot, with log=changes_only")
	}
	if !asked.IsBefore() && !asked.InSnapshot() || f.snapshotEnd || !f.last.IsBefore() {
		return errors.New("a row of the snapshot after its end")
	}
	return nil
}

// advance checks the place of a change in the log: behind all before it, in a transaction that is not closed, and
// not below what an up-to-date has already vouched for.
func (f *follower) advance(asked shape.Offset, m *message) error {
	at, err := offsetOf(m)
	if err != nil {
		return err
	}
	if !f.snapshotEnd {
		return errors.New("a change from replication before the snapshot-end")
	}
	if at.Compare(asked) <= 0 || at.Compare(f.last) <= 0 {
		return fmt.Errorf("%s comes after %s, asked for what is behind %s", at, f.last, asked)
	}
	if at.Tx <= f.claimed {
		return fmt.Errorf("%s comes after an up-to-date that claimed everything up to %d", at, f.claimed)
	}
	if same := at.Tx == f.last.Tx && !f.last.IsBefore(); f.open != same {
		return fmt.Errorf("%s follows %s, whose transaction is open: %v", at, f.last, f.open)
	}
	f.last, f.open = at, !m.Headers.Last
	return nil
}
