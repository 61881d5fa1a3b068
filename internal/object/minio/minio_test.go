package minio_test

import (
	"testing"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/object/minio"
	"github.com/shapeline/shapeline/internal/object/objecttest"
	"github.com/shapeline/shapeline/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestConform(t *testing.T) {
	harness.Require(t)
	t.Setenv("AWS_ACCESS_KEY_ID", harness.StoreUser)
	t.Setenv("AWS_SECRET_ACCESS_KEY", harness.StorePassword)
	for _, kind := range []string{harness.MinIO, harness.VersityGW} {
		t.Run(kind, func(t *testing.T) {
			server := harness.Store(t, kind)
			l, err := location.Parse("minio://" + server.Addr + "/" + server.NewBucket(t) + "/a/prefix")
			if err != nil {
				t.Fatal(err)
			}
			objecttest.Conform(t, func() object.Store {
				s, err := minio.Open(l)
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
		l, err := location.Parse("minio://" + addr + "/bucket/prefix?tls=false&region=us-east-1" + query)
		if err != nil {
			t.Fatal(err)
		}
		s, err := minio.Open(l)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
