package segment_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/shapeline/shapeline/internal/segment"
)

func TestSealedJSON(t *testing.T) {
	v := struct {
		Name string `json:"name"`
		N    uint64 `json:"n"`
	}{"shape", 1 << 62}
	b, err := segment.SealJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "{\n  \"name\": \"shape\",\n  \"n\": 4611686018427387904,\n  \"sum\": \"19777e17\"\n}"
	if string(b) != golden {
		t.Errorf("sealed %s", b)
	}
	got := v
	got.Name = ""
	if err := json.Unmarshal(b, &got); err != nil || got != v {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if err := segment.CheckJSON(b); err != nil {
		t.Error(err)
	}
	for i := range 8 * len(b) { // no bit may flip unnoticed
		damaged := append([]byte(nil), b...)
		damaged[i/8] ^= 1 << (i % 8)
		if err := segment.CheckJSON(damaged); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("bit %d: %v", i, err)
		}
	}
	for _, s := range []string{"", "{}", "null", `{"sum": "00000000"}`} {
		if err := segment.CheckJSON([]byte(s)); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
