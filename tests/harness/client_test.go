package harness_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/tests/harness"
)

// reply is one scripted answer. Offset and body are enough for a good 200; headers overrides, "" removes.
type reply struct {
	status  int // 0: 200
	offset  string
	body    string
	headers map[string]string
}

// script answers each request with the next reply, and the last one for ever. An up-to-date in the body sets the
// header.
func script(t *testing.T, replies ...reply) string {
	t.Helper()
	n := 0 // the client asks one at a time
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rep := replies[min(n, len(replies)-1)]
		n++
		h := w.Header()
		h.Set("electric-handle", "1-0")
		h.Set("electric-offset", rep.offset)
		if r.FormValue("live") == "true" {
			h.Set("electric-cursor", "20")
		} else {
			h.Set("electric-schema", "{}")
		}
		if strings.Contains(rep.body, "up-to-date") {
			h.Set("electric-up-to-date", "")
		}
		for k, v := range rep.headers {
			if h.Set(k, v); v == "" {
				h.Del(k)
			}
		}
		if rep.status != 0 {
			w.WriteHeader(rep.status)
		}
		fmt.Fprintf(w, "[%s]", rep.body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const snapshotEnd = `{"headers":{"control":"snapshot-end","xmin":"1","xmax":"1","xip_list":[]}}`

func upToDate(lsn int) string {
	return fmt.Sprintf(`{"headers":{"control":"up-to-date","global_last_seen_lsn":"%d"}}`, lsn)
}

func snap(key, value string) string {
	return fmt.Sprintf(`{"key":%q,"value":%s,"headers":{"operation":"insert","relation":["public","t"]}}`, key, value)
}

// change is a change at lsn_pos; a leading + on op marks the last of its transaction.
func change(op string, lsn, pos int, key, value string) string {
	op, last := strings.TrimPrefix(op, "+"), strings.HasPrefix(op, "+")
	return fmt.Sprintf(`{"key":%q,"value":%s,"headers":{"operation":%q,"relation":["public","t"],"txids":[7],`+
		`"lsn":"%d","op_position":%d,"last":%v}}`, key, value, op, lsn, pos, last)
}

var start = []reply{
	{offset: "0_0", body: snap("k1", `{"id":"1","v":null}`) + "," + snapshotEnd},
	{offset: "0_inf", body: upToDate(9)},
}

func TestClientFollows(t *testing.T) {
	url := script(t, append(start,
		reply{status: 503},
		reply{offset: "10_2", body: change("insert", 10, 0, "k2", `{"id":"2","v":"b"}`) + "," +
			change("+update", 10, 2, "k1", `{"id":"1","v":"a"}`) + "," + upToDate(10)},
		reply{offset: "12_0", body: change("+delete", 12, 0, "k2", `{"id":"2"}`) + "," + upToDate(12)},
	)...)
	c := harness.NewClient(url, harness.Params("table", "t"))
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var commits []uint64
	c.OnCommit = func(m harness.Commit) { commits = append(commits, m.LSN) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	one, a := "1", "a"
	if err := c.AwaitSum(t.Context(), harness.Sum([]harness.Row{{"id": &one, "v": &a}})); err != nil {
		t.Error(err)
	}
	cancel()
	// The script has nothing left but its last answer, which comes again.
	if err := <-done; err != nil && !errors.Is(err, harness.ErrViolation) {
		t.Error(err)
	}
	if len(commits) != 2 || commits[0] != 10 || commits[1] != 12 {
		t.Errorf("commits: %v", commits)
	}
	c.View(func(s harness.State) {
		if s.Stats.Retries != 1 || s.LSN != 12 || s.Offset.String() != "12_0" {
			t.Errorf("state: %+v", s)
		}
	})
}

func TestClientRefetches(t *testing.T) {
	gone := reply{status: 409, body: `{"headers":{"control":"must-refetch"}}`,
		headers: map[string]string{"electric-handle": "2-0"}}
	second := func(r reply) reply {
		r.headers = map[string]string{"electric-handle": "2-0"}
		return r
	}
	c := harness.NewClient(script(t, start[0], gone, second(start[0]), second(start[1])), harness.Params("table", "t"))
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.View(func(s harness.State) {
		if s.Handle != "2-0" || len(s.Rows) != 1 || s.Stats.Refetch != 1 {
			t.Errorf("state: %+v", s)
		}
	})
}

// TestClientRefuses holds one broken rule a row against the client.
func TestClientRefuses(t *testing.T) {
	ins := change("+insert", 10, 0, "k2", `{"id":"2","v":"b"}`)
	for _, tt := range []struct {
		want string
		last []reply // after the start
	}{
		{"known is true", []reply{{offset: "10_0", body: change("+insert", 10, 0, "k1", `{}`) + "," + upToDate(10)}}},
		{"known is false", []reply{{offset: "10_0", body: change("+update", 10, 0, "k3", `{}`) + "," + upToDate(10)}}},
		{"known is false", []reply{{offset: "10_0", body: change("+delete", 10, 0, "k3", `{}`) + "," + upToDate(10)}}},
		{"the body ends at 10_0", []reply{{offset: "11_0", body: ins + "," + upToDate(11)}}},
		{"claimed everything", []reply{{offset: "9_0", body: change("+delete", 9, 0, "k1", `{}`) + "," + upToDate(9)}}},
		{"comes after 10_0", []reply{{offset: "10_0", body: ins + "," + ins + "," + upToDate(10)}}},
		{"is open: false", []reply{{offset: "10_2", body: ins + "," +
			change("+delete", 10, 2, "k1", `{}`) + "," + upToDate(10)}}},
		{"is open: true", []reply{{offset: "11_0", body: change("delete", 10, 0, "k1", `{}`) + "," +
			change("+insert", 11, 0, "k2", `{}`) + "," + upToDate(11)}}},
		{"inside the transaction", []reply{{offset: "10_0", body: change("delete", 10, 0, "k1", `{}`) + "," +
			upToDate(10)}}},
		{"neither up to date", []reply{{offset: "0_inf"}}},
		{"goes back", []reply{{offset: "0_0"}}},
		{"out of place", []reply{{offset: "10_0", body: upToDate(10) + "," + ins}}},
		{"less than", []reply{{offset: "10_0", body: ins + "," + upToDate(9)}}},
		{"without the message", []reply{{offset: "10_0", body: ins,
			headers: map[string]string{"electric-up-to-date": " "}}}},
		{"electric-cursor", []reply{{offset: "0_inf", body: upToDate(9),
			headers: map[string]string{"electric-cursor": ""}}}},
		{"with the handle", []reply{{offset: "0_inf", body: upToDate(9),
			headers: map[string]string{"electric-handle": "3-0"}}}},
		{"read the messages", []reply{{offset: "10_0", body: strings.Replace(ins, "[7]", `["7"]`, 1)}}},
		{"after its end", []reply{{offset: "1_0", body: snap("k9", `{}`)}}},
		{"names the dead handle", []reply{{status: 409, body: `{"headers":{"control":"must-refetch"}}`}}},
		{"status 404", []reply{{status: 404}}},
	} {
		t.Run(tt.want, func(t *testing.T) {
			c := harness.NewClient(script(t, append(start[:len(start):len(start)], tt.last...)...),
				harness.Params("table", "t"))
			if err := c.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := c.Run(t.Context())
			if !errors.Is(err, harness.ErrViolation) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a violation with %q", err, tt.want)
			}
		})
	}
}

func TestClientReplicaFull(t *testing.T) {
	good := strings.Replace(change("+update", 10, 0, "k1", `{"id":"1","v":"a"}`), `,"headers"`,
		`,"old_value":{"v":null},"headers"`, 1)
	for body, want := range map[string]string{
		good: "",
		strings.Replace(good, `"v":null`, `"v":"x"`, 1):                   "is not what the row had",
		change("+update", 10, 0, "k1", `{"id":"1","v":"a"}`):              "old_value belongs",
		strings.Replace(good, `{"id":"1","v":"a"}`, `{"v":"a"}`, 1):       "1 of 2 columns",
		strings.Replace(good, `"v":"a"`, `"v":"a","w":"not a column"`, 1): "not in the row",
	} {
		c := harness.NewClient(script(t, start[0], reply{offset: "10_0", body: body + "," + upToDate(10)}),
			harness.Params("table", "t", "replica", "full"))
		if err := c.Sync(t.Context()); want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
