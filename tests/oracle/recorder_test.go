package oracle_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
	"github.com/shapeline/shapeline/tests/harness"
	"github.com/shapeline/shapeline/tests/oracle"
)

// record is one committed transaction with what every shape's clients must hold after it.
type record struct {
	oracle.Commit
	end    uint64         // of the write-ahead log after the commit
	states []oracle.State // by shape
}

// change is what of a message this package looks at; the harness's client checks the rest.
type change struct {
	Key     *string     `json:"key"`
	Value   harness.Row `json:"value"`
	Headers struct {
		Control   string   `json:"control"`
		Operation string   `json:"operation"`
		Txids     []uint32 `json:"txids"`
		LSN       string   `json:"lsn"`
		Op        uint64   `json:"op_position"`
		Last      bool     `json:"last"`
		Xmin      string   `json:"xmin"`
		Xmax      string   `json:"xmax"`
		XipList   []string `json:"xip_list"`
		GlobalLSN string   `json:"global_last_seen_lsn"`
	} `json:"headers"`
}

// recorder keeps what a client was sent: the rows of the snapshot, the snapshot, and each transaction's sum.
type recorder struct {
	mu       sync.Mutex
	snapshot pg.Snapshot
	rows     map[string]harness.Row // of the snapshot, then moved on as checks pass
	sum      uint64                 // of rows
	checked  int                    // records that rows is past of; -1 before the first check
	commits  []harness.Commit       // not checked yet
	changes  []change               // of those
	newest   uint64                 // LSN of the last transaction that was sent
	err      error
}

// newRecorder sets the hooks of c, whose first request is still to come.
func newRecorder(c *harness.Client) *recorder {
	r := &recorder{rows: map[string]harness.Row{}, checked: -1}
	c.OnCommit = func(hc harness.Commit) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.commits, r.newest = append(r.commits, hc), hc.LSN
	}
	c.OnReply = r.reply
	return r
}

func (r *recorder) reply(reply harness.Reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var body []change
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		r.err = fmt.Errorf("%s: %w", reply.URL, err)
		return
	}
	for _, c := range body {
		switch {
		case c.Headers.Control == "snapshot-end":
			r.readSnapshot(c)
		case c.Headers.Control == "must-refetch":
			r.err = fmt.Errorf("%s: a 409, though nothing dropped the shape", reply.URL)
		case c.Headers.Control == "" && c.Headers.LSN == "":
			r.rows[*c.Key] = c.Value
			r.sum += c.Value.Sum()
		case c.Headers.Control == "":
			r.changes = append(r.changes, c)
		}
	}
}

func (r *recorder) readSnapshot(c change) {
	text := c.Headers.Xmin + ":" + c.Headers.Xmax + ":"
	for i, x := range c.Headers.XipList {
		if i > 0 {
			text += ","
		}
		text += x
	}
	var err error
	if r.snapshot, err = pg.ParseSnapshot(text); err != nil {
		r.err = fmt.Errorf("snapshot-end: %w", err)
	}
}

// check holds what the client was sent against records: the snapshot against the state that it saw, each further
// transaction against the state after it. at is the shape's index into the records' states.
func (r *recorder) check(at int, records []record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if r.checked < 0 {
		for r.checked = 0; r.checked < len(records) && r.sees(records[r.checked].XID); r.checked++ {
		}
		seen := func(rec record) bool { return rec.XID != 0 && r.sees(rec.XID) }
		if slices.ContainsFunc(records[r.checked:], seen) {
			return fmt.Errorf("the snapshot %s is not of one moment", r.snapshot)
		}
		if want := records[r.checked-1].states[at]; r.sum != want.Sum {
			return fmt.Errorf("the snapshot %s, after commit %d: %s", r.snapshot, r.checked-1,
				oracle.Differences(r.rows, want.Rows))
		}
	}
	for ; r.checked < len(records); r.checked++ {
		if err := r.checkCommit(at, records[r.checked-1], records[r.checked]); err != nil {
			return fmt.Errorf("at commit %d: %w", r.checked, err)
		}
	}
	if len(r.commits) > 0 {
		return fmt.Errorf("%d transactions were sent that nobody made, the first %+v", len(r.commits), r.commits[0])
	}
	return nil
}

// sees reports whether the snapshot saw a transaction; one that wrote nothing it saw as well.
func (r *recorder) sees(xid uint32) bool { return xid == 0 || r.snapshot.Sees(pg.XID(xid)) }

// checkCommit takes the next transaction that was sent, if it is rec, and compares the sums after it.
func (r *recorder) checkCommit(at int, before, rec record) error {
	want := rec.states[at]
	sent := "nothing was sent"
	if len(r.commits) > 0 && r.commits[0].LSN < rec.end {
		c := r.commits[0]
		if c.LSN < before.end || c.XID != rec.XID {
			return fmt.Errorf("lsn %d, xid %d: the transaction has xid %d and lies between %d and %d",
				c.LSN, c.XID, rec.XID, before.end, rec.end)
		}
		var messages []string
		for len(r.changes) > 0 && r.changes[0].Headers.LSN == strconv.FormatUint(c.LSN, 10) {
			m := r.changes[0]
			messages = append(messages, fmt.Sprintf("%s %s %s at %d",
				m.Headers.Operation, *m.Key, oracle.Short(m.Value.String()), m.Headers.Op))
			applyChange(r.rows, m)
			r.changes = r.changes[1:]
		}
		r.commits, r.sum = r.commits[1:], c.Sum
		sent = fmt.Sprintf("lsn %d was sent: %q", c.LSN, messages)
	}
	if r.sum != want.Sum {
		return fmt.Errorf("%s\n%s\nthe statements were %q", sent, oracle.Differences(r.rows, want.Rows), rec.Statements)
	}
	return nil
}

// applyChange moves rows on by m.
func applyChange(rows map[string]harness.Row, m change) {
	if m.Headers.Operation == "delete" {
		delete(rows, *m.Key)
		return
	}
	row := maps.Clone(rows[*m.Key])
	if row == nil {
		row = harness.Row{}
	}
	maps.Copy(row, m.Value)
	rows[*m.Key] = row
}

// sent adds a change that came by another way than the harness's client. sum is of all rows after it.
func (r *recorder) sent(m change, at shape.Offset, sum uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, m)
	if m.Headers.Last {
		r.commits, r.newest = append(r.commits, harness.Commit{LSN: at.Tx, XID: m.Headers.Txids[0], Sum: sum}), at.Tx
	}
}

func (r *recorder) newestLSN() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

// forget drops the rows that no report will need any more; the sums stay, for clients that come later begin with the
// snapshot that the first one made.
func forget(records []record) {
	for _, r := range records[:len(records)-1] {
		for i := range r.states {
			r.states[i].Rows = nil
		}
	}
}
