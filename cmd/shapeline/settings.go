package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/shapeline/shapeline/ingest"
	"github.com/shapeline/shapeline/ingest/postgres"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/dir"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/object/meter"
	"github.com/shapeline/shapeline/internal/object/minio"
	"github.com/shapeline/shapeline/internal/object/s3"
	"github.com/shapeline/shapeline/serve"
)

// bucketFlags say where everything durable is.
type bucketFlags struct {
	Bucket     string `help:"The bucket: file://DIR, s3://BUCKET/PREFIX or minio://HOST:PORT/BUCKET/PREFIX." default:"file://.shapeline" env:"SHAPELINE_BUCKET"`
	StorageDir string `hidden:"" env:"ELECTRIC_STORAGE_DIR"`
}

// open returns the store, which has not been touched but for what its driver needs, and counts what is asked of it.
func (f bucketFlags) open(ctx context.Context, log *slog.Logger) (*meter.Store, error) {
	bucket := f.Bucket
	if f.StorageDir != "" && bucket == "file://.shapeline" {
		bucket = "file://" + f.StorageDir
	}
	l, err := location.Parse(bucket)
	if err != nil {
		return nil, err
	}
	var store object.Store
	switch l.Scheme {
	case location.File:
		store, err = dir.Open(l.Dir)
	case location.S3:
		store, err = s3.Open(ctx, l)
	case location.MinIO:
		store, err = minio.Open(l)
	}
	if err != nil {
		return nil, err
	}
	return meter.New(withCrashPoints(store, log)), nil
}

// databaseFlags say what ingest follows and how.
type databaseFlags struct {
	PooledDatabaseURL     string        `help:"A URL for everything but replication; may lead to a pooler." env:"ELECTRIC_POOLED_DATABASE_URL,ELECTRIC_QUERY_DATABASE_URL"`
	StreamID              string        `help:"Suffix of the publication's and the slot's name." default:"default" env:"ELECTRIC_REPLICATION_STREAM_ID"`
	DBPoolSize            int           `help:"Connections for everything but replication." default:"20" env:"ELECTRIC_DB_POOL_SIZE"`
	ManualTablePublishing bool          `help:"Never change the publication or a replica identity; only check them." env:"ELECTRIC_MANUAL_TABLE_PUBLISHING"`
	FlushInterval         time.Duration `help:"Pause between segments under load; 0 is the bucket's own." default:"0" env:"SHAPELINE_FLUSH_INTERVAL"`
	RequestsInterval      time.Duration `help:"Pause between looks for what serve processes ask through the bucket. Default: the bucket's own, and none while nothing happens and some serve has an --ingest-url; set it if others have not." default:"0" env:"SHAPELINE_REQUESTS_INTERVAL"`
	ChunkBytes            uint64        `help:"From how many bytes on a chunk of a shape's log is closed." default:"10485760" env:"SHAPELINE_CHUNK_BYTES,ELECTRIC_SHAPE_CHUNK_BYTES_THRESHOLD"`
	Retention             time.Duration `help:"How long a shape's old rows and log are kept once a new base has superseded them." default:"192h" env:"SHAPELINE_RETENTION"`
}

func (f databaseFlags) config(databaseURL string, store object.Store, log *slog.Logger) ingest.Config {
	return ingest.Config{
		Postgres: postgres.Config{
			URL: databaseURL, PooledURL: f.PooledDatabaseURL, StreamID: f.StreamID, PoolSize: f.DBPoolSize,
			ManualPublishing: f.ManualTablePublishing,
		},
		Store: store, Log: log, FlushInterval: f.FlushInterval, RequestsInterval: f.RequestsInterval, ChunkBytes: f.ChunkBytes,
		Retention: f.Retention,
	}
}

// serveFlags say how clients are answered.
type serveFlags struct {
	Secret                string       `help:"Clients must send it as ?secret=." env:"SHAPELINE_SECRET,ELECTRIC_SECRET"`
	CacheMaxAge           int          `help:"Seconds." default:"60" env:"ELECTRIC_CACHE_MAX_AGE"`
	CacheStaleAge         int          `help:"Seconds." default:"300" env:"ELECTRIC_CACHE_STALE_AGE"`
	LongPollTimeout       milliseconds `help:"How long a live request waits for news; a number is milliseconds." default:"20s" env:"ELECTRIC_LONG_POLL_TIMEOUT"`
	MaxConcurrentRequests concurrency  `help:"As JSON." default:"{\"initial\":300,\"existing\":10000}" env:"ELECTRIC_MAX_CONCURRENT_REQUESTS"`
	AllowDelete           bool         `help:"Let clients drop shapes, for tests." env:"ELECTRIC_ENABLE_INTEGRATION_TESTING"`
}

func (f serveFlags) config(store object.Store, opener serve.Opener, log *slog.Logger) serve.Config {
	return serve.Config{
		Store: store, Opener: opener, Log: log, Secret: f.Secret, AllowDelete: f.AllowDelete,
		CacheMaxAge:     time.Duration(f.CacheMaxAge) * time.Second,
		CacheStaleAge:   time.Duration(f.CacheStaleAge) * time.Second,
		LongPollTimeout: time.Duration(f.LongPollTimeout),
		MaxInitial:      f.MaxConcurrentRequests.Initial, MaxExisting: f.MaxConcurrentRequests.Existing,
		Version: version(),
	}
}

// checkSecret holds the rule that a server is either protected or open on purpose.
func checkSecret(secret string, insecure bool) error {
	switch {
	case secret == "" && !insecure:
		return errors.New("set SHAPELINE_SECRET (or --secret), or pass --insecure to let everybody read everything")
	case secret != "" && insecure:
		return errors.New("a secret and --insecure contradict each other: choose one")
	}
	return nil
}

// milliseconds is a duration that may be written as a bare number, as Electric's settings are.
type milliseconds time.Duration

func (m *milliseconds) UnmarshalText(b []byte) error {
	if n, err := strconv.ParseUint(string(b), 10, 31); err == nil {
		*m = milliseconds(time.Duration(n) * time.Millisecond)
		return nil
	}
	d, err := time.ParseDuration(string(b))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is neither milliseconds nor a duration like 20s", b)
	}
	*m = milliseconds(d)
	return nil
}

type concurrency struct {
	Initial  int `json:"initial"`
	Existing int `json:"existing"`
}

func (c *concurrency) UnmarshalText(b []byte) error {
	type plain concurrency
	if err := json.Unmarshal(b, (*plain)(c)); err != nil || c.Initial < 1 || c.Existing < 1 {
		return fmt.Errorf(`%q is not of the form {"initial":300,"existing":10000}`, b)
	}
	return nil
}

// address is where to listen: addr, or all interfaces on Electric's port if that is set.
func address(addr string, port int) string {
	if port != 0 {
		return net.JoinHostPort("", strconv.Itoa(port))
	}
	return addr
}

// publicURL is how a person reaches a listener on this machine.
func publicURL(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		host = "localhost"
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
	return u.String()
}
