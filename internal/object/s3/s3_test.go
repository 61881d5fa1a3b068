package s3_test

import (
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/object/objecttest"
	"github.com/shapeline/shapeline/internal/object/s3"
	"github.com/shapeline/shapeline/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestConform(t *testing.T) {
	harness.Require(t)
	t.Setenv("AWS_ACCESS_KEY_ID", harness.StoreUser)
	t.Setenv("AWS_SECRET_ACCESS_KEY", harness.StorePassword)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for _, kind := range []string{harness.MinIO, harness.VersityGW} {
		t.Run(kind, func(t *testing.T) {
			server := harness.Store(t, kind)
			t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+server.Addr)
			l, err := location.Parse("s3://" + server.NewBucket(t) + "/a/prefix?region=us-east-1")
			if err != nil {
				t.Fatal(err)
			}
			objecttest.Conform(t, func() object.Store {
				s, err := s3.Open(t.Context(), l)
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestDriver(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", objecttest.DriverUser)
	t.Setenv("AWS_SECRET_ACCESS_KEY", objecttest.DriverSecret)
	objecttest.ConformDriver(t, func(t *testing.T, addr, query string) object.Store {
		t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+addr)
		l, err := location.Parse("s3://bucket/prefix?region=us-east-1" + query)
		if err != nil {
			t.Fatal(err)
		}
		s, err := s3.Open(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
