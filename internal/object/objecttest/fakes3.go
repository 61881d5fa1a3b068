package objecttest

import (
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// FakeS3 answers as a server of S3 does, as far as the drivers ask, and misbehaves as told. It is for tests of drivers
// that need no real server: what a real one does is for the real ones to show.
type FakeS3 struct {
	IgnoreConditions bool                         // takes If-Match and If-None-Match, and does not look at them
	Fault            func(*http.Request) *S3Fault // nil, or what happens instead

	mu       sync.Mutex
	objects  map[string][]byte // by path
	Requests []*http.Request   // all, in order; the bodies are gone. Read it when nothing is under way
}

// S3Fault is an answer that a request gets instead of its own.
type S3Fault struct {
	Status   int
	Code     string // of the XML body
	Truncate bool   // answer as ever, but break off in the middle of the body
}

// ServeHTTP implements http.Handler.
func (f *FakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a broken request is the test's business
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		f.objects = make(map[string][]byte)
	}
	f.Requests = append(f.Requests, r)
	var fault *S3Fault
	if f.Fault != nil {
		fault = f.Fault(r)
	}
	if fault != nil && fault.Status != 0 {
		fail(w, fault.Status, fault.Code)
		return
	}
	old, there := f.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodPut:
		match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
		if !f.IgnoreConditions && (none != "" && there || match != "" && (!there || strings.Trim(match, `"`) != etag(old))) {
			fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		f.objects[r.URL.Path] = body
		w.Header().Set("ETag", `"`+etag(body)+`"`)
	case r.Method == http.MethodDelete:
		delete(f.objects, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Get("list-type") == "2":
		f.list(w, r)
	case !there:
		fail(w, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", `"`+etag(old)+`"`)
		if fault != nil && fault.Truncate {
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Length", fmt.Sprint(len(old)))
			_, _ = w.Write(old[:len(old)/2])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Now(), strings.NewReader(string(old)))
	}
}

func etag(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) }

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>told to</Message></Error>", code)
}

func (f *FakeS3) list(w http.ResponseWriter, r *http.Request) {
	type content struct {
		Key          string
		Size         int
		LastModified string
	}
	out := struct {
		XMLName  xml.Name `xml:"ListBucketResult"`
		Contents []content
	}{}
	bucket := strings.TrimSuffix(r.URL.Path, "/") + "/"
	for path, b := range f.objects {
		key, ok := strings.CutPrefix(path, bucket)
		if q := r.URL.Query(); ok && strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("start-after") {
			out.Contents = append(out.Contents, content{key, len(b), time.Now().UTC().Format(time.RFC3339)})
		}
	}
	slices.SortFunc(out.Contents, func(a, b content) int { return strings.Compare(a.Key, b.Key) })
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(out) // the client is gone
}
