package s3_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/object/objecttest"
	"github.com/shapeline/shapeline/internal/object/s3"
)

// open returns a store on a fake server, and the server.
func open(t *testing.T, f *objecttest.FakeS3, query string) object.Store {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	l, err := location.Parse("s3://bucket/prefix?region=us-east-1" + query)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const secret = "do-not-print-me"

// TestIgnoredConditions: a store that takes the conditions and ignores them is refused.
func TestIgnoredConditions(t *testing.T) {
	if err := object.SelfTest(t.Context(), open(t, &objecttest.FakeS3{}, "")); err != nil {
		t.Errorf("a sound store: %v", err)
	}
	var unfit *object.UnfitError
	if err := object.SelfTest(t.Context(), open(t, &objecttest.FakeS3{IgnoreConditions: true}, "")); !errors.As(err, &unfit) {
		t.Errorf("a store without conditions: %v", err)
	}
}

// TestFaults: what the server answers becomes the errors of the contract, puts with a condition are tried once, and no
// error holds a secret.
func TestFaults(t *testing.T) {
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
		fault objecttest.S3Fault
		act   func(context.Context, object.Store) error
		want  error // nil: none of the contract's
		text  string
		tries int // 0: any
	}{
		"exists":           {objecttest.S3Fault{Status: 412, Code: "PreconditionFailed"}, put(object.IfAbsent()), object.ErrExists, "", 1},
		"changed":          {objecttest.S3Fault{Status: 412, Code: "PreconditionFailed"}, put(object.IfMatch("x")), object.ErrChanged, "", 1},
		"gone":             {objecttest.S3Fault{Status: 404, Code: "NoSuchKey"}, put(object.IfMatch("x")), object.ErrChanged, "", 1},
		"conflict":         {objecttest.S3Fault{Status: 409, Code: "ConditionalRequestConflict"}, put(object.IfAbsent()), nil, "ConditionalRequestConflict", 1},
		"slow down":        {objecttest.S3Fault{Status: 503, Code: "SlowDown"}, put(object.IfAbsent()), nil, "", 1},
		"slow down, swap":  {objecttest.S3Fault{Status: 503, Code: "SlowDown"}, put(object.IfMatch("x")), nil, "", 1},
		"slow down, plain": {objecttest.S3Fault{Status: 503, Code: "SlowDown"}, put(object.Always()), nil, "", 3},
		"full":             {objecttest.S3Fault{Status: 507, Code: "XMinioStorageFull"}, put(object.IfAbsent()), object.ErrFull, "", 0},
		"not found":        {objecttest.S3Fault{Status: 404, Code: "NoSuchKey"}, get, object.ErrNotFound, "", 1},
		"range":            {objecttest.S3Fault{Status: 416, Code: "InvalidRange"}, get, object.ErrRange, "", 1},
		"no bucket":        {objecttest.S3Fault{Status: 404, Code: "NoSuchBucket"}, get, nil, "create it", 1},
		"wrong secret":     {objecttest.S3Fault{Status: 403, Code: "SignatureDoesNotMatch"}, get, nil, "refuses these credentials", 0},
		"truncated":        {objecttest.S3Fault{Truncate: true}, get, nil, "read the body", 0},
	} {
		t.Run(name, func(t *testing.T) {
			faulty := false
			f := &objecttest.FakeS3{Fault: func(*http.Request) *objecttest.S3Fault {
				if faulty {
					return &c.fault
				}
				return nil
			}}
			s := open(t, f, "")
			if err := put(object.Always())(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			faulty, f.Requests = true, nil
			err := c.act(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), secret) {
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

func TestEncryptionAndClass(t *testing.T) {
	f := &objecttest.FakeS3{}
	s := open(t, f, "&sse=aws:kms&kms-key=my-key&storage-class=STANDARD_IA")
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
