package rebase

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"github.com/shapeline/shapeline/internal/shape"
)

func message(op, key, value string) []byte {
	return fmt.Appendf(nil, `{"key":"%s","value":%s,"headers":{"operation":"%s"`, key, value, op)
}

func TestFold(t *testing.T) {
	for name, c := range map[string]struct {
		base, log, want []string // "key value", "op key value"
		err             error
	}{
		"nothing": {[]string{`1 {"a":"x"}`}, nil, []string{`1 {"a":"x"}`}, nil},
		"every operation": {
			[]string{`1 {"a":"x","b":"y"}`, `2 {"a":"x","b":"y"}`, `3 {"a":"x","b":null}`},
			[]string{`insert 4 {"a":"new","b":"z"}`, `update 1 {"b":"1"}`, `delete 2 {}`, `update 4 {"a":null}`, `update 1 {"b":"2"}`},
			[]string{`1 {"a":"x","b":"2"}`, `3 {"a":"x","b":null}`, `4 {"a":null,"b":"z"}`}, nil,
		},
		"gone and there again": {
			[]string{`1 {"a":"x"}`}, []string{`delete 1 {}`, `insert 1 {"a":"y"}`, `insert 2 {"a":"z"}`, `delete 2 {}`},
			[]string{`1 {"a":"y"}`}, nil,
		},
		"rows that share a key": {
			[]string{`k {"a":"x"}`, `k {"a":"x"}`}, []string{`delete k {}`, `delete k {}`, `insert k {"a":"x"}`, `insert k {"a":"x"}`},
			[]string{`k {"a":"x"}`}, nil,
		},
		"an update of nothing":        {nil, []string{`update 1 {"a":"x"}`}, nil, errHistory},
		"an update of what is gone":   {[]string{`1 {"a":"x"}`}, []string{`delete 1 {}`, `update 1 {"a":"y"}`}, nil, errHistory},
		"something that is no change": {nil, []string{`upsert 1 {"a":"x"}`}, nil, shape.ErrNotChange},
	} {
		for _, parts := range []int{1, 3} {
			var got []string
			emit := func(c *shape.Change) error {
				b := string(shape.AppendChange(nil, c))
				value, _, _ := strings.Cut(strings.SplitN(b, `"value":`, 2)[1], `,"headers"`)
				got = append(got, strings.Trim(string(c.Key), `"`)+" "+value)
				return nil
			}
			run := func() error {
				seed := maphash.MakeSeed()
				for part := range parts {
					f := newFold(seed, part, parts)
					for _, l := range c.log {
						w := strings.SplitN(l, " ", 3)
						if err := f.take(message(w[0], w[1], w[2])); err != nil {
							return err
						}
					}
					for _, l := range c.base {
						w := strings.SplitN(l, " ", 2)
						if err := f.row(message("insert", w[0], w[1]), emit); err != nil {
							return err
						}
					}
					if err := f.rest(emit); err != nil {
						return err
					}
				}
				return nil
			}
			if err := run(); !errors.Is(err, c.err) {
				t.Errorf("%s: %v", name, err)
			} else if slices.Sort(got); err == nil && !slices.Equal(got, c.want) {
				t.Errorf("%s in %d parts: %q", name, parts, got)
			}
		}
	}
}
