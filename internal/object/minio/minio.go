// Package minio stores objects in MinIO, and in every other server that speaks S3 and keeps its conditions (R2,
// VersityGW, SeaweedFS, GCS interop), through minio-go. It owns that library. AWS itself is object/s3's.
//
// Nothing is retried that has a condition: whoever puts reads back what an error left behind.
package minio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
)

const (
	dialTimeout     = 5 * time.Second
	responseTimeout = 10 * time.Second // to the first byte of an answer
	idleConnections = 64
	readTries       = 3
)

// Store is a bucket, or a prefix of one. It implements object.Store.
type Store struct {
	loc   location.Location
	core  minio.Core // retries
	once  minio.Core // does not
	sse   encrypt.ServerSide
	class string
}

// Open returns the store at l. It asks the server nothing yet. Credentials come from MINIO_ACCESS_KEY and
// MINIO_SECRET_KEY, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the files of
// either tool, or the machine's role.
func Open(l location.Location) (*Store, error) {
	s := &Store{loc: l, class: l.StorageClass}
	var err error
	switch {
	case l.SSE == "AES256":
		s.sse = encrypt.NewSSE()
	case l.SSE != "":
		if s.sse, err = encrypt.NewSSEKMS(l.KMSKey, nil); err != nil {
			return nil, fmt.Errorf("open %s: encryption: %w", &l, err)
		}
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: responseTimeout,
		MaxIdleConns: idleConnections, MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: time.Minute,
		DisableCompression: true, // objects are what they are
	}
	options := minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvMinio{}, &credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.FileMinioClient{},
			&credentials.IAM{Client: &http.Client{Transport: transport}},
		}),
		Secure: l.TLS, Transport: transport, Region: l.Region, MaxRetries: readTries,
	}
	core, err := minio.NewCore(l.Host, &options)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", &l, err)
	}
	options.MaxRetries = 1
	once, err := minio.NewCore(l.Host, &options)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", &l, err)
	}
	s.core, s.once = *core, *once
	return s, nil
}

// Caps implements object.Store.
func (s *Store) Caps() object.Caps {
	return object.Caps{
		Name: "MinIO", FlushInterval: 100 * time.Millisecond, ProbeInterval: 20 * time.Millisecond, ListInterval: 250 * time.Millisecond,
	}
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	if err := object.ValidKey(key); err != nil {
		return nil, err
	}
	var opts minio.GetObjectOptions
	if h := location.RangeHeader(r); h != "" {
		opts.Set("Range", h)
	}
	body, info, header, err := s.core.GetObject(ctx, s.loc.Bucket, s.loc.Prefix+key, opts)
	if err != nil {
		return nil, s.failure("get", key, err, object.Condition{})
	}
	defer body.Close()
	b := bytes.NewBuffer(make([]byte, 0, max(info.Size, 0)+bytes.MinRead))
	n, err := b.ReadFrom(body)
	if err == nil && n != info.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: read the body: %w", key, err)
	}
	size, ok := location.Size(header.Get("Content-Range"), n)
	if !ok {
		return nil, fmt.Errorf("get %s: the server answered a range with %q", key, header.Get("Content-Range"))
	}
	return &object.Object{Body: cut(b.Bytes(), r), ETag: info.ETag, Size: size, Modified: info.LastModified}, nil
}

// cut shortens a suffix to the length that was asked for, which the header cannot say.
func cut(b []byte, r object.Range) []byte {
	if r.Offset < 0 && r.Length > 0 && r.Length < int64(len(b)) {
		return b[:r.Length:r.Length]
	}
	return b
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	if err := object.ValidKey(key); err != nil {
		return "", err
	}
	opts := minio.PutObjectOptions{
		ContentType: "application/octet-stream", ServerSideEncryption: s.sse, StorageClass: s.class, DisableMultipart: true,
		DisableContentSha256: true,
	}
	sum := ""
	if !s.loc.TLS { // signed as a whole: the library's own signature by pieces is not understood by every server
		digest := sha256.Sum256(body)
		sum = hex.EncodeToString(digest[:])
	}
	client := s.core
	switch {
	case c.Absent():
		opts.SetMatchETagExcept("*")
		client = s.once
	case c.ETag() != "":
		opts.SetMatchETag(c.ETag())
		client = s.once
	}
	info, err := client.PutObject(ctx, s.loc.Bucket, s.loc.Prefix+key, bytes.NewReader(body), int64(len(body)), "", sum, opts)
	if err != nil {
		return "", s.failure("put", key, err, c)
	}
	return info.ETag, nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.ValidKey(key); err != nil {
		return err
	}
	err := s.core.RemoveObject(ctx, s.loc.Bucket, s.loc.Prefix+key, minio.RemoveObjectOptions{})
	if err == nil {
		return nil
	}
	if err = s.failure("delete", key, err, object.Condition{}); errors.Is(err, object.ErrNotFound) {
		return nil
	}
	return err
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]object.Info, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the iterator's requests when it is left early
	defer cancel()
	opts := minio.ListObjectsOptions{Prefix: s.loc.Prefix + prefix, Recursive: true}
	if after != "" {
		opts.StartAfter = s.loc.Prefix + after
	}
	if limit > 0 {
		opts.MaxKeys = min(limit, 1000)
	}
	var infos []object.Info
	for o := range s.core.ListObjectsIter(ctx, s.loc.Bucket, opts) {
		if o.Err != nil {
			return nil, s.failure("list", prefix, o.Err, object.Condition{})
		}
		key := o.Key[min(len(s.loc.Prefix), len(o.Key)):]
		if object.ValidKey(key) != nil {
			continue // a folder that a person made
		}
		infos = append(infos, object.Info{Key: key, Size: o.Size, Modified: o.LastModified})
		if len(infos) == limit {
			return infos, nil
		}
	}
	if err := ctx.Err(); err != nil { // the iterator just ends
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return infos, nil
}

// failure maps what the server answered to the errors of package object. What it does not know is left as it is: for a
// put, ambiguous.
func (s *Store) failure(what, key string, err error, c object.Condition) error {
	answer := minio.ToErrorResponse(err)
	conditional := c.Absent() || c.ETag() != ""
	switch {
	case answer.Code == "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s at %s: create it, or correct --bucket", s.loc.Bucket, s.loc.Host)
	case answer.Code == "AccessDenied", answer.Code == "InvalidAccessKeyId", answer.Code == "SignatureDoesNotMatch",
		answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s %s: %s refuses these credentials (%s): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
			"and what they may do in bucket %s", what, key, s.loc.Host, answer.Code, s.loc.Bucket)
	case c.Absent() && answer.StatusCode == http.StatusPreconditionFailed:
		return fmt.Errorf("put %s: %w", key, object.ErrExists)
	case conditional && answer.StatusCode == http.StatusPreconditionFailed,
		c.ETag() != "" && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("put %s: %w", key, object.ErrChanged)
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", what, key, object.ErrNotFound)
	case answer.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%s %s: %w", what, key, object.ErrRange)
	case answer.StatusCode == http.StatusInsufficientStorage, answer.Code == "XMinioStorageFull",
		answer.Code == "QuotaExceeded", answer.Code == "XMinioAdminBucketQuotaExceeded":
		return fmt.Errorf("%s %s: %w (%s)", what, key, object.ErrFull, answer.Code)
	}
	if answer.Code != "" {
		return fmt.Errorf("%s %s: %s: %w", what, key, answer.Code, err)
	}
	return fmt.Errorf("%s %s: %w", what, key, err)
}
