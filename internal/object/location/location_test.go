package location_test

import (
	"math"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]location.Location{
		"file://.shapeline":   {Scheme: "file", Dir: ".shapeline"},
		"file:///var/lib/x y": {Scheme: "file", Dir: "/var/lib/x y"},
		"s3://b":              {Scheme: "s3", Bucket: "b"},
		"s3://b/a/p/?region=eu-west-1&storage-class=STANDARD_IA": {Scheme: "s3", Bucket: "b", Prefix: "a/p/", Region: "eu-west-1", StorageClass: "STANDARD_IA"},
		"s3://b/p?sse=aws:kms&kms-key=alias/x":                   {Scheme: "s3", Bucket: "b", Prefix: "p/", SSE: "aws:kms", KMSKey: "alias/x"},
		"minio://localhost:9000/b/p":                             {Scheme: "minio", Host: "localhost:9000", Bucket: "b", Prefix: "p/"},
		"minio://host/b":                                         {Scheme: "minio", Host: "host", Bucket: "b", TLS: true},
		"minio://host:443/b":                                     {Scheme: "minio", Host: "host:443", Bucket: "b", TLS: true},
		"minio://host:9000/b?tls=true&sse=AES256":                {Scheme: "minio", Host: "host:9000", Bucket: "b", TLS: true, SSE: "AES256"},
		"minio://[::1]:9000/b":                                   {Scheme: "minio", Host: "[::1]:9000", Bucket: "b"},
	} {
		if got, err := location.Parse(s); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"":                                 "file://DIR",
		"file://":                          "file://DIR",
		"ftp://x":                          "file://DIR",
		"s3://":                            "s3://BUCKET",
		"minio://host:9000":                "names an endpoint and no bucket",
		"s3://b/a//b":                      "an element is empty",
		"s3://b/p?tls=true":                "region, sse, kms-key, storage-class",
		"s3://b?region=a&region=b":         "given twice",
		"s3://b?sse=rot13":                 "AES256 or aws:kms",
		"s3://b?kms-key=k":                 "sse=aws:kms",
		"minio://h:1/b?tls=perhaps":        "neither true nor false",
		"s3://KEY:hunter2@b/p":             "must not hold credentials",
		"minio://KEY:hunter2@host:9000/b":  "must not hold credentials",
		"minio://KEY:hunter2@host:9000/%z": "not of a kind",
	} {
		_, err := location.Parse(s)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("minio://host:9000/b/p?tls=true")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := location.Parse(s)
		if err != nil {
			return
		}
		if l.Scheme != location.File && l.Bucket == "" || l.Prefix != "" && !strings.HasSuffix(l.Prefix, "/") {
			t.Errorf("%q is %+v", s, l)
		}
	})
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		r    object.Range
		want string
	}{
		{object.Range{}, ""}, {object.Range{Offset: 5}, "bytes=5-"}, {object.Range{Offset: 5, Length: 1}, "bytes=5-5"},
		{object.Range{Length: 3}, "bytes=0-2"}, {object.Range{Offset: -4}, "bytes=-4"}, {object.Range{Offset: 9, Length: math.MaxInt64}, "bytes=9-"},
	} {
		if got := location.RangeHeader(c.r); got != c.want {
			t.Errorf("%+v: %q", c.r, got)
		}
	}
	for header, want := range map[string]int64{"": 3, "bytes 0-2/10": 10, "bytes 0-2/*": -1, "bytes 0-2/2": -1, "x": -1} {
		if n, ok := location.Size(header, 3); ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d, %t", header, n, ok)
		}
	}
}
