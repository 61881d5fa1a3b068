package params

import (
	"errors"
	"net/url"
	"strings"
	"unicode/utf8"
)

// errEncoding is a query string that no form encoder wrote.
var errEncoding = errors.New("query string is not URL-encoded UTF-8")

// param is what a query said about one name. The last form wins, as a later duplicate does.
type param struct {
	text    string
	entries map[string]string // name[key]=value; nil if the last form was name=value
	nested  bool              // name[]= or name[a][b]=, which no parameter of ours takes
}

// Query is a decoded query string: the names that mean something here, and nothing else of it.
type Query struct {
	params map[string]*param
	Subset bool // some key of a subset request is there
	err    error
}

// knownParams are the names that a query keeps.
var knownParams = map[string]bool{
	"table": true, "offset": true, "handle": true, "live": true, "live_sse": true, "experimental_live_sse": true,
	"cursor": true, "where": true, "params": true, "columns": true, "queryable_columns": true, "replica": true,
	"log": true, "experimental_compaction": true, "secret": true, "api_secret": true,
}

// Decode reads a query string by the rules of the protocol reference, 3.1. It reads on after a mistake, so
// that the secret is seen wherever it stands.
func Decode(raw string) *Query {
	q := &Query{params: make(map[string]*param)}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(k)
		value, verr := url.QueryUnescape(v)
		if kerr != nil || verr != nil || !utf8.ValidString(key) || !utf8.ValidString(value) {
			q.err = errEncoding
			continue
		}
		q.add(key, value)
	}
	return q
}

func (q *Query) add(key, value string) {
	name, rest, bracket := strings.Cut(key, "[")
	if bracket && !strings.HasSuffix(rest, "]") {
		return // a name of its own, and none of ours
	}
	if name == "subset" || strings.HasPrefix(name, "subset__") {
		q.Subset = true
	}
	if !knownParams[name] {
		return
	}
	p := q.params[name]
	if p == nil {
		p = &param{}
		q.params[name] = p
	}
	if !bracket {
		*p = param{text: value}
		return
	}
	inner := strings.TrimSuffix(rest, "]")
	if inner == "" || strings.ContainsAny(inner, "[]") {
		p.nested = true
		return
	}
	if p.entries == nil {
		*p = param{entries: make(map[string]string)}
	}
	p.entries[inner] = value
}

// Text returns the value of a plain parameter, which is there unless it is blank.
func (q *Query) Text(name string) (string, bool) {
	p := q.params[name]
	if p == nil || strings.TrimSpace(p.text) == "" {
		return "", false
	}
	return p.text, true
}

// flag reads a parameter that is true unless it is absent or "false".
func (q *Query) flag(name string, absent bool) bool {
	p := q.params[name]
	if p == nil {
		return absent
	}
	return p.text != "false"
}

// Secret returns what the client says is the secret.
func (q *Query) Secret() string {
	p := q.params["secret"]
	if p == nil {
		p = q.params["api_secret"]
	}
	if p == nil {
		return ""
	}
	return p.text
}

// secretParams are the names whose values no log may have.
var secretParams = map[string]bool{
	"secret": true, "api_secret": true, "token": true, "access_token": true, "api_key": true, "password": true,
}

// Redact returns a URL's path and query for logging.
func Redact(u *url.URL) string {
	var b strings.Builder
	b.WriteString(u.EscapedPath())
	sep := byte('?')
	for _, pair := range strings.Split(u.RawQuery, "&") {
		if pair == "" {
			continue
		}
		b.WriteByte(sep)
		sep = '&'
		k, _, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil || secretParams[strings.ToLower(key)] {
			b.WriteString(k)
			b.WriteString("=REDACTED")
			continue
		}
		b.WriteString(pair)
	}
	return b.String()
}
