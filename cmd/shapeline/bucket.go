package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/shapeline/shapeline/internal/audit"
	"github.com/shapeline/shapeline/internal/garbage"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/object/location"
	"github.com/shapeline/shapeline/internal/shapelog"
)

type bucketCmd struct {
	Ls      bucketLsCmd      `cmd:"" help:"List the objects of the bucket."`
	Inspect bucketInspectCmd `cmd:"" help:"Print an object as text."`
	Check   bucketCheckCmd   `cmd:"" help:"Verify every object, and what they say of each other."`
	GC      bucketGCCmd      `cmd:"" name:"gc" help:"Delete what nothing refers to."`
}

// existing is open for commands that only look: they must not make a folder where there is none.
func (f bucketFlags) existing(ctx context.Context, log *slog.Logger) (object.Store, error) {
	if l, err := location.Parse(f.Bucket); err == nil && l.Scheme == location.File {
		if _, err := os.Stat(l.Dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no bucket at %s: correct --bucket", l.Dir)
		}
	}
	return f.open(ctx, log)
}

// listPage is how many names are asked for at a time.
const listPage = 1000

type bucketLsCmd struct {
	Prefix string `arg:"" optional:"" help:"Only keys that begin with this."`
	JSON   bool   `help:"One JSON object a line."`
	bucketFlags
}

type lsLine struct {
	Key      string     `json:"key"`
	Kind     audit.Kind `json:"kind"`
	Size     int64      `json:"size"`
	Modified time.Time  `json:"modified"`
}

// Run prints the objects in key order, as they are listed.
func (c *bucketLsCmd) Run(ctx context.Context, log *slog.Logger) error {
	store, err := c.existing(ctx, log)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for after := ""; ; {
		page, err := store.List(ctx, c.Prefix, after, listPage)
		if err != nil {
			return fmt.Errorf("list the bucket: %w", err)
		}
		for _, i := range page {
			l := lsLine{i.Key, audit.KindOf(i.Key), i.Size, i.Modified.UTC()}
			if c.JSON {
				err = json.NewEncoder(out).Encode(l)
			} else {
				_, err = fmt.Fprintf(out, "%12d  %s  %-10s  %s\n", l.Size, l.Modified.Format(time.RFC3339), l.Kind, l.Key)
			}
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		if len(page) < listPage {
			return nil
		}
		after = page[len(page)-1].Key
	}
}

type bucketInspectCmd struct {
	Key  string `arg:"" help:"As bucket ls prints it."`
	JSON bool   `help:"As JSON."`
	bucketFlags
}

// Run prints what an object holds; if it is damaged, as much as can be read, and an error.
func (c *bucketInspectCmd) Run(ctx context.Context, log *slog.Logger) error {
	store, err := c.existing(ctx, log)
	if err != nil {
		return err
	}
	if err := object.ValidKey(c.Key); err != nil {
		return fmt.Errorf("%w: shapeline bucket ls lists the keys", err)
	}
	o, err := store.Get(ctx, c.Key, object.Range{})
	if errors.Is(err, object.ErrNotFound) {
		return fmt.Errorf("the bucket has no object %s: shapeline bucket ls lists the keys", c.Key)
	} else if err != nil {
		return fmt.Errorf("get %s: %w", c.Key, err)
	}
	d, problem := audit.Describe(c.Key, o.Body)
	if problem != nil {
		problem = fmt.Errorf("%s: %w", c.Key, problem)
	}
	if c.JSON {
		return errors.Join(printJSON(os.Stdout, d), problem)
	}
	out := bufio.NewWriter(os.Stdout)
	return errors.Join(d.WriteText(out), out.Flush(), problem)
}

type bucketCheckCmd struct {
	JSON bool `help:"As JSON."`
	bucketFlags
}

// Run verifies the bucket, and fails if anything is wrong with it.
func (c *bucketCheckCmd) Run(ctx context.Context, log *slog.Logger) error {
	store, err := c.existing(ctx, log)
	if err != nil {
		return err
	}
	var bar *progressbar.ProgressBar
	progress := func(done, total int) {
		if bar == nil {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(),
				progressbar.OptionShowIts(), progressbar.OptionSetItsString("objects"), progressbar.OptionClearOnFinish(),
				progressbar.OptionSetDescription("checking"))
		}
		_ = bar.Set(done) // a terminal that is gone is no reason to stop
	}
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		progress = nil
	}
	r, err := audit.Check(ctx, store, progress)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(os.Stdout, r)
	} else {
		err = printCheck(os.Stdout, r)
	}
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("the bucket has %d problems", len(r.Problems))
	}
	return err
}

type bucketGCCmd struct {
	DryRun    bool          `help:"Say what would be deleted, and delete nothing."`
	OlderThan time.Duration `help:"Leave what is younger; at least 1h." default:"24h"`
	JSON      bool          `help:"As JSON."`
	bucketFlags
}

// Run deletes what neither the log nor control refers to. It may run beside ingest and serve.
func (c *bucketGCCmd) Run(ctx context.Context, log *slog.Logger) error {
	if c.OlderThan < shapelog.Grace {
		return fmt.Errorf("--older-than %s is less than the grace period of %s, within which what is being written has no "+
			"reference yet", c.OlderThan, shapelog.Grace)
	}
	store, err := c.existing(ctx, log)
	if err != nil {
		return err
	}
	state, err := garbage.Fold(ctx, store)
	if err != nil {
		return err
	}
	now, err := garbage.Clock(ctx, store)
	if err != nil {
		return err
	}
	items, err := garbage.Find(ctx, store, state, now.Add(-c.OlderThan))
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := garbage.Delete(ctx, store, items, nil); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(os.Stdout, append([]garbage.Item{}, items...)) // never null
	}
	var bytes int64
	out := bufio.NewWriter(os.Stdout)
	for _, i := range items {
		bytes += i.Size
		fmt.Fprintf(out, "%s: %s\n", i.Key, i.Why)
	}
	what := "deleted"
	if c.DryRun {
		what = "would be deleted"
	}
	fmt.Fprintf(out, "%d objects, %d bytes %s\n", len(items), bytes, what)
	return out.Flush()
}

func printCheck(w io.Writer, r *audit.Result) error {
	out := bufio.NewWriter(w)
	kinds := make([]audit.Kind, 0, len(r.Kinds))
	for k := range r.Kinds {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		fmt.Fprintf(out, "%-10s  %8d objects  %14d bytes\n", k, r.Kinds[k].Objects, r.Kinds[k].Bytes)
	}
	fmt.Fprintf(out, "%d shapes\n", r.Shapes)
	for _, p := range r.Problems {
		fmt.Fprintf(out, "%s: %s\n", p.Key, p.What)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintln(out, "no problem found")
	}
	return out.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
