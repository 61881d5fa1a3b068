package shapelog

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestParseControl(t *testing.T) {
	for _, c := range []struct {
		name, body string
		ok         bool
		err        error
	}{
		{"first", `{"format":1,"epoch":1,"writer":7,"window":8,"floor":0,"checkpoint":{}}`, true, nil},
		{"largest writer", `{"format":1,"epoch":1,"writer":18446744073709551615,"window":8}`, true, nil},
		{"unknown member", `{"format":1,"epoch":1,"window":8,"packs":[]}`, true, nil},
		{"newer", `{"format":2,"window":8}`, false, ErrFormat},
		{"other window", `{"format":1,"window":16}`, false, ErrFormat},
		{"empty", ``, false, nil},
		{"cut", `{"format":1,"win`, false, nil},
		{"negative epoch", `{"format":1,"window":8,"epoch":-1}`, false, nil},
		{"null", `null`, false, ErrFormat},
	} {
		_, err := parseControl([]byte(c.body))
		if (err == nil) != c.ok || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzParseControl checks that whatever is accepted comes back the same.
func FuzzParseControl(f *testing.F) {
	for _, s := range []string{`{"format":1,"window":8}`, ``, `null`, `[]`, `{"format":1e0,"window":8}`,
		`{"format":1,"window":8,"checkpoint":{"generation":18446744073709551615,"seq":1,"shards":-1,"epoch":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseControl(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := parseControl(again); err != nil || d != c {
			t.Errorf("%+v came back as %+v, %v", c, d, err)
		}
	})
}

func TestSegmentKey(t *testing.T) {
	for _, c := range []struct {
		seq uint64
		key string
	}{{1, "log/0000000000000001"}, {0xabc, "log/0000000000000abc"}, {1<<64 - 1, "log/ffffffffffffffff"}} {
		if got := SegmentKey(c.seq); got != c.key {
			t.Errorf("%d: %s", c.seq, got)
		}
		if got, err := ParseSegmentKey(c.key); err != nil || got != c.seq {
			t.Errorf("%s: %d, %v", c.key, got, err)
		}
	}
	for _, bad := range []string{"", "log/", "log/1", "log/000000000000000A", "log/00000000000000001", "pack/0000000000000001",
		"log/+000000000000001", "log/0000000000000001/x"} {
		if seq, err := ParseSegmentKey(bad); err == nil {
			t.Errorf("%q was read as %d", bad, seq)
		}
	}
}

func TestStopwatchBelievesTheClockThatSaysMore(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name string
		at   stopwatch
		want time.Duration
	}{
		// Without its monotonic reading a time is compared by the wall clock.
		{"monotonic", stopwatch{start.Add(-time.Hour)}, time.Hour},
		{"wall", stopwatch{start.Add(-time.Hour).Round(0)}, time.Hour},
		{"never", stopwatch{}, 100 * 365 * 24 * time.Hour},
	} {
		if got := c.at.elapsed(); got < c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
