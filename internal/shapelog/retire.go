package shapelog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// sweepMax bounds the names that one Sweep lists.
const sweepMax = 1000

// Retire raises the floor: segments below it may be deleted from now on, and readers that were not so far start from
// the checkpoint, which must hold them. A floor that is not higher changes nothing. The error is ErrFenced if another
// writer has taken over.
func (w *Writer) Retire(ctx context.Context, floor uint64) error {
	return w.change(ctx, func(c *Control) error {
		if floor > c.Checkpoint.Seq+1 {
			return fmt.Errorf("raise the floor to %d: the checkpoint at %d does not hold what is below it",
				floor, c.Checkpoint.Seq)
		}
		c.Floor = max(c.Floor, floor)
		return nil
	})
}

// Sweep deletes segments below the floor that are older than Grace by the store's own clock, the lowest first, and
// returns how many. It stops at the first that is too young: readers rely on a slot outliving those below it. It is
// meant for now and then, while there is work; one call deletes at most a thousand. The error is ErrFenced if another
// writer has taken over.
func (w *Writer) Sweep(ctx context.Context) (deleted int, err error) {
	o, err := get(ctx, w.store, ControlKey)
	if err != nil {
		return 0, fmt.Errorf("sweep the log: get control: %w", err)
	}
	c, err := parseControl(o.Body)
	if err != nil {
		return 0, fmt.Errorf("sweep the log: %w", err)
	}
	if c.Epoch != w.epoch || c.Writer != w.id {
		err := fmt.Errorf("sweep the log: %w", ErrFenced)
		w.stop(err)
		return 0, err
	}
	infos, err := w.store.List(ctx, LogPrefix, "", sweepMax)
	if err != nil {
		return 0, fmt.Errorf("sweep the log: %w", err)
	}
	// The store's clock stood at o.Modified, at least, when control was read.
	for _, i := range infos {
		seq, err := ParseSegmentKey(i.Key)
		if err != nil || seq >= c.Floor || o.Modified.Sub(i.Modified) <= Grace {
			break
		}
		if err := w.store.Delete(ctx, i.Key); err != nil {
			return deleted, fmt.Errorf("sweep the log: %w", err)
		}
		deleted++
	}
	return deleted, nil
}

// errNoSegmentKey says that a name below log/ is none that SegmentKey returns.
var errNoSegmentKey = errors.New("not the name of a segment")

// ParseSegmentKey reads what SegmentKey returns; of other text it says that it is none.
func ParseSegmentKey(key string) (seq uint64, err error) {
	digits, ok := strings.CutPrefix(key, LogPrefix)
	seq, perr := strconv.ParseUint(digits, 16, 64)
	if !ok || perr != nil || SegmentKey(seq) != key {
		return 0, fmt.Errorf("%q: %w", key, errNoSegmentKey)
	}
	return seq, nil
}
