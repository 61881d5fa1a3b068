package serve

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shapeline/shapeline/serve/params"
)

const (
	contentJSON   = "application/json; charset=utf-8"
	contentText   = "text/plain; charset=utf-8"
	contentEvents = "text/event-stream"

	// cacheDefault is for answers that have nothing to do with shapes.
	cacheDefault = "max-age=0, private, must-revalidate"
	cacheFirst   = "public, max-age=604800, s-maxage=3600, stale-while-revalidate=2629746"
	cacheLive    = "public, max-age=5, stale-while-revalidate=5"
)

// caching is what the cache headers of an answer depend on.
type caching struct {
	method    string
	status    int
	handle    bool // a 409 names a handle
	first     bool // offset=-1
	live, sse bool
}

// setCaching sets the cache headers of the protocol reference, 4.5: the first case that fits wins.
func (s *Server) setCaching(h http.Header, c caching) {
	value := s.cacheTail
	switch {
	case c.method != http.MethodGet && c.method != http.MethodHead:
		value = "no-cache"
	case c.status == http.StatusConflict && c.handle:
		value = "public, max-age=60, must-revalidate"
	case c.status == http.StatusConflict:
		value = "public, max-age=1, must-revalidate"
	case c.status >= http.StatusBadRequest:
		value = "no-store"
		h.Set("Surrogate-Control", "no-store")
	case c.first:
		value = cacheFirst
	case c.live && c.sse:
		value = s.cacheSSE
	case c.live:
		value = cacheLive
	}
	h.Set("Cache-Control", value)
}

// setHeaders sets the headers of an answer about v, 200 or 304 (protocol reference, 4.1).
func (s *Server) setHeaders(h http.Header, q *params.Request, v *view, status int, method string) {
	h.Set("Content-Type", contentJSON)
	h.Set("Electric-Handle", v.handle)
	h.Set("Electric-Offset", v.end.String())
	h.Set("Electric-Has-Data", strconv.FormatBool(!v.quiet))
	if v.upToDate {
		h["Electric-Up-To-Date"] = []string{""}
	}
	if q.Live {
		h.Set("Electric-Cursor", s.cursor(q.Cursor, time.Now()))
	} else if status == http.StatusOK {
		h.Set("Electric-Schema", headerJSON(v.plan.Info.Schema))
	}
	h.Set("Etag", v.etag(q))
	s.setCaching(h, caching{method: method, status: status, first: q.Offset.IsBefore(), live: q.Live, sse: q.SSE})
}

// etag identifies the answer by where it begins and ends. That of an answer without changes by nature is unique,
// so that no cache revalidates one poll with another.
func (v *view) etag(q *params.Request) string {
	b := make([]byte, 0, 96)
	b = append(b, '"')
	b = append(b, v.handle...)
	b = append(b, ':')
	b = q.Offset.Append(b)
	b = append(b, ':')
	b = v.end.Append(b)
	if v.quiet {
		b = append(b, ':')
		b = strconv.AppendInt(b, time.Now().UnixNano(), 10)
	}
	return string(append(b, '"'))
}

// matches reports whether the client has the answer with this tag already. Weak tags match too: proxies that
// compress weaken them.
func matches(r *http.Request, etag string) bool {
	want := strings.Trim(etag, `"`)
	for _, line := range r.Header["If-None-Match"] {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if strings.Trim(tag, `"`) == want {
				return true
			}
		}
	}
	return false
}

// cursorEpoch is where the protocol's seconds begin: 2024-10-09T00:00:00Z.
const cursorEpoch = 1728432000

// cursor is the next value of electric-cursor: the same for all who ask in one interval, and never the one that
// the client has.
func (s *Server) cursor(prev uint64, now time.Time) string {
	interval := int64(s.cfg.LongPollTimeout / time.Second)
	if interval < 1 {
		return "0"
	}
	seconds := max(now.Unix()-cursorEpoch, 0)
	next := uint64((seconds + interval - 1) / interval * interval)
	if next <= prev {
		next = prev + 1 + rand.Uint64N(3600)
	}
	return strconv.FormatUint(next, 10)
}

// headerJSON returns JSON as a header can carry it everywhere: browsers read header bytes as Latin-1.
func headerJSON(b []byte) string {
	ascii := true
	for _, c := range b {
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return string(b)
	}
	var out strings.Builder
	for _, r := range string(b) {
		if r < utf8.RuneSelf {
			out.WriteRune(r)
			continue
		}
		if r >= 0x10000 {
			r -= 0x10000
			writeEscape(&out, 0xd800+r>>10)
			r = 0xdc00 + r&0x3ff
		}
		writeEscape(&out, r)
	}
	return out.String()
}

func writeEscape(b *strings.Builder, r rune) {
	const digits = "0123456789abcdef"
	b.WriteString(`\u`)
	for shift := 12; shift >= 0; shift -= 4 {
		b.WriteByte(digits[r>>shift&15])
	}
}
