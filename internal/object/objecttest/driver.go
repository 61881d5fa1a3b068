package objecttest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
)

// The credentials that ConformDriver's stores must use. No error may hold the secret.
const (
	DriverUser   = "somebody"
	DriverSecret = "do-not-print-me"
)

// ConformDriver tests what a driver of S3 makes of a server's answers. open returns a store on the server at addr
// (host:port, without TLS), in some bucket; query holds parameters for the bucket's URL.
func ConformDriver(t *testing.T, open func(t *testing.T, addr, query string) object.Store) {
	d := drivers{open}
	t.Run("ignored conditions", d.ignoredConditions)
	t.Run("faults", d.faults)
	t.Run("encryption and class", d.encryptionAndClass)
}

type drivers struct {
	open func(t *testing.T, addr, query string) object.Store
}

// start returns a store on a fake server.
func (d drivers) start(t *testing.T, f *FakeS3, query string) object.Store {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return d.open(t, strings.TrimPrefix(server.URL, "http://"), query)
}

// ignoredConditions: a store that takes the conditions and ignores them is refused.
func (d drivers) ignoredConditions(t *testing.T) {
	if err := object.SelfTest(t.Context(), d.start(t, &FakeS3{}, "")); err != nil {
		t.Errorf("a sound store: %v", err)
	}
	var unfit *object.UnfitError
	if err := object.SelfTest(t.Context(), d.start(t, &FakeS3{IgnoreConditions: true}, "")); !errors.As(err, &unfit) {
		t.Errorf("a store without conditions: %v", err)
	}
}

// faults: what the server answers becomes the errors of the contract, puts with a condition are tried once, and no
// error holds a secret.
func (d drivers) faults(t *testing.T) {
	put := func(c object.Condition) func(context.Context, object.Store) error {
		return func(ctx context.Context, s object.Store) error {
			_, err := s.Put(ctx, "k", []byte("body"), c)
			return err
		}
	}
	get := func(ctx context.Context, s object.Store) error {
		_, err := s.Get(ctx, "k", object.Range{})
		return err
	}
	for name, c := range map[string]struct {
		fault S3Fault
		act   func(context.Context, object.Store) error
		want  error // nil: none of the contract's
		text  string
		tries int // 0: any
	}{
		"exists":           {S3Fault{Status: 412, Code: "PreconditionFailed"}, put(object.IfAbsent()), object.ErrExists, "", 1},
		"changed":          {S3Fault{Status: 412, Code: "PreconditionFailed"}, put(object.IfMatch("x")), object.ErrChanged, "", 1},
		"gone":             {S3Fault{Status: 404, Code: "NoSuchKey"}, put(object.IfMatch("x")), object.ErrChanged, "", 1},
		"conflict":         {S3Fault{Status: 409, Code: "ConditionalRequestConflict"}, put(object.IfAbsent()), nil, "ConditionalRequestConflict", 1},
		"slow down":        {S3Fault{Status: 503, Code: "SlowDown"}, put(object.IfAbsent()), nil, "", 1},
		"slow down, swap":  {S3Fault{Status: 503, Code: "SlowDown"}, put(object.IfMatch("x")), nil, "", 1},
		"slow down, plain": {S3Fault{Status: 503, Code: "SlowDown"}, put(object.Always()), nil, "", 3},
		"full":             {S3Fault{Status: 507, Code: "XMinioStorageFull"}, put(object.IfAbsent()), object.ErrFull, "", 0},
		"not found":        {S3Fault{Status: 404, Code: "NoSuchKey"}, get, object.ErrNotFound, "", 1},
		"range":            {S3Fault{Status: 416, Code: "InvalidRange"}, get, object.ErrRange, "", 1},
		"no bucket":        {S3Fault{Status: 404, Code: "NoSuchBucket"}, get, nil, "create it", 1},
		"wrong secret":     {S3Fault{Status: 403, Code: "SignatureDoesNotMatch"}, get, nil, "refuses these credentials", 0},
		"truncated":        {S3Fault{Truncate: true}, get, nil, "read the body", 0},
	} {
		t.Run(name, func(t *testing.T) {
			faulty := false
			f := &FakeS3{Fault: func(*http.Request) *S3Fault {
				if faulty {
					return &c.fault
				}
				return nil
			}}
			s := d.start(t, f, "")
			if err := put(object.Always())(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			faulty, f.Requests = true, nil
			err := c.act(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), DriverSecret) {
				t.Errorf("got %v", err)
			}
			for _, known := range []error{object.ErrExists, object.ErrChanged, object.ErrNotFound, object.ErrRange, object.ErrFull} {
				if errors.Is(err, known) != (known == c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			}
			if c.tries > 0 && len(f.Requests) != c.tries {
				t.Errorf("%d requests, want %d", len(f.Requests), c.tries)
			}
		})
	}
}

func (d drivers) encryptionAndClass(t *testing.T) {
	f := &FakeS3{}
	s := d.start(t, f, "&sse=aws:kms&kms-key=my-key&storage-class=STANDARD_IA")
	if _, err := s.Put(t.Context(), "k", []byte("x"), object.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	h := f.Requests[len(f.Requests)-1].Header
	for name, want := range map[string]string{
		"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "my-key",
		"X-Amz-Storage-Class": "STANDARD_IA", "If-None-Match": "*",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
