package shape

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Replica says what updates and deletes carry (protocol reference, 5.4).
type Replica string

// The replica modes.
const (
	ReplicaDefault Replica = "default"
	ReplicaFull    Replica = "full"
)

// LogMode says whether the log begins with the rows of the snapshot.
type LogMode string

// The log modes.
const (
	LogFull        LogMode = "full"
	LogChangesOnly LogMode = "changes_only"
)

// Definition is a shape as it was asked for: syntax checked and names resolved to their canonical spelling, but
// Where still the user's text. Requests with equal hashes get the same answer without anybody parsing SQL; ingest
// finds out which definitions mean the same shape.
type Definition struct {
	Table   Table    `json:"table"`
	Where   string   `json:"where,omitempty"`
	Params  []string `json:"params,omitempty"`  // the values of $1, $2, ...
	Columns []string `json:"columns,omitempty"` // sorted, without repeats; none means all
	Replica Replica  `json:"replica"`
	Log     LogMode  `json:"log"`
}

// Canonical returns d with its list of columns sorted and without repeats, its text trimmed, and the defaults
// written out.
func (d Definition) Canonical() Definition {
	d.Where = strings.TrimSpace(d.Where)
	if d.Columns != nil {
		d.Columns = slices.Clone(d.Columns)
		slices.Sort(d.Columns)
		d.Columns = slices.Compact(d.Columns)
	}
	if d.Replica == "" {
		d.Replica = ReplicaDefault
	}
	if d.Log == "" {
		d.Log = LogFull
	}
	return d
}

// Hash identifies the canonical form of d, as 32 hexadecimal digits.
func (d Definition) Hash() string {
	b, err := json.Marshal(d.Canonical())
	if err != nil {
		panic(err) // strings and slices of strings always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Refusal is why a definition gets no shape: an answer that any plane can give to the client as it stands.
type Refusal struct {
	Status     int      `json:"status"`                // 400, 409, 500 or 503
	Field      string   `json:"field,omitempty"`       // 400: the parameter that is wrong
	Texts      []string `json:"texts,omitempty"`       // 400: what is wrong with it
	Message    string   `json:"message,omitempty"`     // the others: one sentence
	RetryAfter int      `json:"retry_after,omitempty"` // seconds, 503 only
}

// Invalid returns the refusal of a parameter.
func Invalid(field string, texts ...string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Field: field, Texts: texts}
}

// Unavailable returns the refusal of a request that may succeed after some seconds.
func Unavailable(retryAfter int, message string) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Message: message, RetryAfter: retryAfter}
}

// Error is the message, or the field with its texts.
func (r *Refusal) Error() string {
	if r.Field != "" {
		return r.Field + ": " + strings.Join(r.Texts, "; ")
	}
	return r.Message
}
