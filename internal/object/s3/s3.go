// Package s3 stores objects in Amazon S3, Express directory buckets among it, through the AWS SDK: with its chain of
// credentials, regions, and AWS_ENDPOINT_URL_S3 for whoever wants another endpoint with them. It owns that library.
//
// Nothing is retried that has a condition: whoever puts reads back what an error left behind.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
)

const (
	dialTimeout     = 5 * time.Second
	responseTimeout = 10 * time.Second // to the first byte of an answer
	idleConnections = 64
	readTries       = 3
	regionDefault   = "us-east-1" // where neither the environment nor the URL names one, for other endpoints
)

// Store is a bucket, or a prefix of one. It implements object.Store.
type Store struct {
	loc    location.Location
	client *s3.Client
}

// Open returns the store at l, with the credentials that the SDK finds. It asks S3 nothing yet.
func Open(ctx context.Context, l location.Location) (*Store, error) {
	transport := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.ResponseHeaderTimeout = responseTimeout
			t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConnections, idleConnections
		})
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(transport), config.WithRetryMaxAttempts(readTries),
	}
	if l.Region != "" {
		options = append(options, config.WithRegion(l.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", &l, err)
	}
	s := &Store{loc: l}
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		if o.BaseEndpoint != nil { // not AWS: name the bucket in the path, and ask for no checksum that few know
			o.UsePathStyle = true
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
			if o.Region == "" {
				o.Region = regionDefault
			}
		}
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	if s.client.Options().Region == "" {
		return nil, fmt.Errorf("open %s: no region is known: set AWS_REGION, or add ?region= to the bucket URL", &l)
	}
	return s, nil
}

// Caps implements object.Store.
func (s *Store) Caps() object.Caps {
	if s.loc.Express() {
		return object.Caps{
			Name: "S3 Express", FlushInterval: 50 * time.Millisecond, ProbeInterval: 20 * time.Millisecond, ListInterval: time.Second,
		}
	}
	return object.Caps{
		Name: "S3", FlushInterval: 250 * time.Millisecond, ProbeInterval: 50 * time.Millisecond, ListInterval: time.Second,
	}
}

func (s *Store) key(key string) *string { return aws.String(s.loc.Prefix + key) }

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key string, r object.Range) (*object.Object, error) {
	if err := object.ValidKey(key); err != nil {
		return nil, err
	}
	in := &s3.GetObjectInput{Bucket: &s.loc.Bucket, Key: s.key(key)}
	if h := location.RangeHeader(r); h != "" {
		in.Range = &h
	}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		return nil, s.failure("get", key, err, object.Condition{})
	}
	defer out.Body.Close()
	want := aws.ToInt64(out.ContentLength)
	b := bytes.NewBuffer(make([]byte, 0, max(want, 0)+bytes.MinRead))
	n, err := b.ReadFrom(out.Body)
	if err == nil && n != want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: read the body: %w", key, err)
	}
	size, ok := location.Size(aws.ToString(out.ContentRange), n)
	if !ok {
		return nil, fmt.Errorf("get %s: the server answered a range with %q", key, aws.ToString(out.ContentRange))
	}
	body := b.Bytes()
	if r.Offset < 0 && r.Length > 0 && r.Length < n { // the header cannot say how much of a suffix is wanted
		body = body[:r.Length:r.Length]
	}
	return &object.Object{
		Body: body, ETag: aws.ToString(out.ETag), Size: size, Modified: aws.ToTime(out.LastModified),
	}, nil
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte, c object.Condition) (string, error) {
	if err := object.ValidKey(key); err != nil {
		return "", err
	}
	in := &s3.PutObjectInput{
		Bucket: &s.loc.Bucket, Key: s.key(key), Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		ContentType: aws.String("application/octet-stream"), StorageClass: types.StorageClass(s.loc.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(s.loc.SSE),
	}
	if s.loc.KMSKey != "" {
		in.SSEKMSKeyId = &s.loc.KMSKey
	}
	if s.loc.SSE == "aws:kms" {
		in.BucketKeyEnabled = aws.Bool(true) // else each request costs a call of KMS besides
	}
	var once []func(*s3.Options)
	switch {
	case c.Absent():
		in.IfNoneMatch = aws.String("*")
	case c.ETag() != "":
		in.IfMatch = aws.String(c.ETag())
	}
	if c.Absent() || c.ETag() != "" {
		once = append(once, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	}
	out, err := s.client.PutObject(ctx, in, once...)
	if err != nil {
		return "", s.failure("put", key, err, c)
	}
	return aws.ToString(out.ETag), nil
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := object.ValidKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.loc.Bucket, Key: s.key(key)})
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
	in := &s3.ListObjectsV2Input{Bucket: &s.loc.Bucket, Prefix: s.key(prefix)}
	if s.loc.Express() { // lists by folder, in no order, and not from a name on
		in.Prefix = aws.String((*in.Prefix)[:strings.LastIndexByte(*in.Prefix, '/')+1])
	} else {
		if after != "" {
			in.StartAfter = s.key(after)
		}
		if limit > 0 && limit < 1000 {
			in.MaxKeys = aws.Int32(int32(limit))
		}
	}
	var infos []object.Info
	pages := s3.NewListObjectsV2Paginator(s.client, in)
	for pages.HasMorePages() && (s.loc.Express() || limit <= 0 || len(infos) < limit) {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, s.failure("list", prefix, err, object.Condition{})
		}
		for _, o := range page.Contents {
			key, ok := strings.CutPrefix(aws.ToString(o.Key), s.loc.Prefix)
			if !ok || object.ValidKey(key) != nil || !strings.HasPrefix(key, prefix) || key <= after {
				continue // a folder that a person made; or the list of an Express bucket
			}
			infos = append(infos, object.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
		}
	}
	if s.loc.Express() {
		slices.SortFunc(infos, func(a, b object.Info) int { return strings.Compare(a.Key, b.Key) })
	}
	if limit > 0 && len(infos) > limit {
		infos = infos[:limit]
	}
	return infos, nil
}

// failure maps what S3 answered to the errors of package object. What it does not know is left as it is: for a put,
// ambiguous; a 409, which S3 gives to one of two puts at the same time, is such.
func (s *Store) failure(what, key string, err error, c object.Condition) error {
	var code string
	if api := smithy.APIError(nil); errors.As(err, &api) {
		code = api.ErrorCode()
	}
	status := 0
	if answer := (*awshttp.ResponseError)(nil); errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	conditional := c.Absent() || c.ETag() != ""
	switch {
	case code == "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s: create it, or correct --bucket", s.loc.Bucket)
	case status == 0 && strings.Contains(err.Error(), "get credentials"): // the SDK has no error of its own for it
		return fmt.Errorf("%s %s: no credentials for S3 were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
			"a profile, or a role", what, key)
	case status == http.StatusForbidden:
		return fmt.Errorf("%s %s: S3 refuses these credentials (%s): check them, and what they may do in bucket %s",
			what, key, code, s.loc.Bucket)
	case status == http.StatusMovedPermanently, code == "AuthorizationHeaderMalformed":
		return fmt.Errorf("%s %s: bucket %s lies in another region: set AWS_REGION, or add ?region= to the bucket URL",
			what, key, s.loc.Bucket)
	case c.Absent() && status == http.StatusPreconditionFailed:
		return fmt.Errorf("put %s: %w", key, object.ErrExists)
	case conditional && status == http.StatusPreconditionFailed, c.ETag() != "" && status == http.StatusNotFound:
		return fmt.Errorf("put %s: %w", key, object.ErrChanged)
	case status == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", what, key, object.ErrNotFound)
	case status == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%s %s: %w", what, key, object.ErrRange)
	case status == http.StatusInsufficientStorage, code == "XMinioStorageFull", code == "QuotaExceeded":
		return fmt.Errorf("%s %s: %w (%s)", what, key, object.ErrFull, code)
	}
	return fmt.Errorf("%s %s: %w", what, key, err)
}
