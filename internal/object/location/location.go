// Package location reads the URLs that name a bucket, and the headers that all S3 servers answer alike. It opens
// nothing: the drivers beside it do.
package location

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shapeline/shapeline/internal/object"
)

// The schemes of bucket URLs.
const (
	File  = "file"  // file://DIR
	S3    = "s3"    // s3://BUCKET[/PREFIX]: AWS, or what AWS_ENDPOINT_URL_S3 names
	MinIO = "minio" // minio://HOST[:PORT]/BUCKET[/PREFIX]: MinIO and every other endpoint that speaks S3
)

// Location is a parsed bucket URL.
type Location struct {
	Scheme string
	Dir    string // File
	Host   string // MinIO: host, or host and port
	TLS    bool   // MinIO
	Bucket string // S3 and MinIO, as the rest
	Prefix string // empty, or ends with a slash

	Region       string // empty: the environment's, or the endpoint's
	SSE          string // server-side encryption: empty (the bucket's own), AES256 or aws:kms
	KMSKey       string // with aws:kms: empty is the account's default key
	StorageClass string // empty: the bucket's own
}

// ErrScheme means that a URL is not of a kind that this version knows.
var ErrScheme = errors.New("give file://DIR, s3://BUCKET/PREFIX or minio://HOST:PORT/BUCKET/PREFIX")

// Parse reads a bucket URL. Credentials do not belong in it, because it is printed and logged.
func Parse(s string) (Location, error) {
	if dir, ok := strings.CutPrefix(s, File+"://"); ok {
		if dir == "" {
			return Location{}, fmt.Errorf("bucket %q names no directory: %w", s, ErrScheme)
		}
		return Location{Scheme: File, Dir: dir}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != S3 && u.Scheme != MinIO {
		return Location{}, fmt.Errorf("bucket is not of a kind that this version knows: %w", ErrScheme)
	}
	if u.User != nil {
		return Location{}, errors.New("the bucket URL must not hold credentials, because it is logged: " +
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
	}
	if u.Fragment != "" || u.Opaque != "" || u.Host == "" {
		return Location{}, fmt.Errorf("bucket %q: %w", s, ErrScheme)
	}
	l := Location{Scheme: u.Scheme, Host: u.Host}
	path := strings.Trim(u.Path, "/")
	if l.Scheme == S3 {
		l.Bucket, l.Host = u.Host, ""
	} else if l.Bucket, path, _ = strings.Cut(path, "/"); l.Bucket == "" {
		return Location{}, fmt.Errorf("bucket %q names an endpoint and no bucket: %w", s, ErrScheme)
	}
	if path != "" {
		if err := object.ValidKey(path); err != nil {
			return Location{}, fmt.Errorf("prefix of bucket %q: %w", s, err)
		}
		l.Prefix = path + "/"
	}
	if err := l.query(u); err != nil {
		return Location{}, fmt.Errorf("bucket %q: %w", s, err)
	}
	return l, nil
}

func (l *Location) query(u *url.URL) error {
	port := u.Port()
	l.TLS = l.Scheme == MinIO && (port == "" || port == "443")
	known := []string{"region", "sse", "kms-key", "storage-class"}
	if l.Scheme == MinIO {
		known = append(known, "tls")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	for name, v := range values {
		if !slices.Contains(known, name) || len(v) != 1 {
			return fmt.Errorf("parameter %q is unknown or given twice; there are %s", name, strings.Join(known, ", "))
		}
	}
	l.Region, l.SSE, l.KMSKey, l.StorageClass = values.Get("region"), values.Get("sse"), values.Get("kms-key"), values.Get("storage-class")
	if tls := values.Get("tls"); tls != "" {
		if l.TLS, err = strconv.ParseBool(tls); err != nil {
			return fmt.Errorf("tls=%q is neither true nor false", tls)
		}
	}
	switch {
	case l.SSE != "" && l.SSE != "AES256" && l.SSE != "aws:kms":
		return fmt.Errorf("sse=%q: give AES256 or aws:kms", l.SSE)
	case l.KMSKey != "" && l.SSE != "aws:kms":
		return errors.New("kms-key needs sse=aws:kms")
	}
	if l.Scheme == MinIO {
		if _, _, err := net.SplitHostPort(l.Host); err != nil && port != "" {
			return fmt.Errorf("endpoint %q: %w", l.Host, err)
		}
	}
	return nil
}

// Express reports whether the bucket is an S3 Express directory bucket, whose lists have no order.
func (l *Location) Express() bool { return l.Scheme == S3 && strings.HasSuffix(l.Bucket, "--x-s3") }

// String prints the location for logs.
func (l *Location) String() string {
	switch l.Scheme {
	case File:
		return File + "://" + l.Dir
	case S3:
		return S3 + "://" + l.Bucket + "/" + l.Prefix
	}
	return l.Scheme + "://" + l.Host + "/" + l.Bucket + "/" + l.Prefix
}

// RangeHeader is the header that asks for r: empty for all of an object.
func RangeHeader(r object.Range) string {
	switch {
	case r == object.Range{}:
		return ""
	case r.Offset < 0: // a suffix; Get cuts it if Length is shorter
		return fmt.Sprintf("bytes=%d", r.Offset)
	case r.Length == 0, r.Offset+r.Length < 0: // the second: behind what can be counted
		return fmt.Sprintf("bytes=%d-", r.Offset)
	}
	return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
}

// Size returns the size of the whole object of which n bytes came with the header Content-Range; false if the header
// makes no sense.
func Size(contentRange string, n int64) (int64, bool) {
	if contentRange == "" {
		return n, true
	}
	_, total, ok := strings.Cut(contentRange, "/")
	size, err := strconv.ParseInt(total, 10, 64)
	return size, ok && err == nil && size >= n
}
