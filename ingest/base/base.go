// Package base stores the first rows of a shape as pages that are ready HTTP bodies, while they are being read, and
// finds again what was stored. It owns the sizes of pages; it does not read the rows, nor decide when a page may be
// shown (a page can be read as soon as it is stored).
//
// The one idea: pages grow from small to large, so that the first reach a waiting client after one small write and
// the rest cost few; and a fixed number of buffers go round, so that memory does not depend on the table.
package base

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/shapeline/shapeline/internal/catalog"
	"github.com/shapeline/shapeline/internal/object"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/segment"
	"github.com/shapeline/shapeline/internal/shape"
)

// pageBytes is how big the pages of a base get, the last for all that follow: the first reach a waiting client
// after one small PUT, the rest cost few.
var pageBytes = []int{64 << 10, 256 << 10, 1 << 20, 8 << 20}

// pagesUnderWay bounds the pages of one base that are being stored while the next is filled.
const pagesUnderWay = 2

// Writer cuts rendered rows into pages and stores them. It is for one goroutine.
type Writer struct {
	store    object.Store
	handle   shape.Handle
	bytesMax int // of a page: the chunk threshold
	puts     *errgroup.Group
	ctx      context.Context // of puts; lives as long as the writer

	page  []byte // room for the header, then the body
	free  chan []byte
	rows  uint32
	base  catalog.Base // what is complete
	first func() error // called once, when page 0 is stored
}

// NewWriter returns a writer of the pages of h, each of at most about bytesMax bytes. It calls first once page 0 is
// stored, unless that is the last page. ctx bounds all that is stored.
func NewWriter(ctx context.Context, store object.Store, h shape.Handle, bytesMax int, first func() error) *Writer {
	w := &Writer{store: store, handle: h, bytesMax: bytesMax, first: first, free: make(chan []byte, pagesUnderWay+1)}
	for range cap(w.free) {
		w.free <- nil
	}
	w.begin(<-w.free)
	w.puts, w.ctx = errgroup.WithContext(ctx)
	w.puts.SetLimit(pagesUnderWay)
	return w
}

// Handle is whose pages they are.
func (w *Writer) Handle() shape.Handle { return w.handle }

// begin starts a page in a buffer that is free again.
func (w *Writer) begin(buf []byte) {
	w.page = append(append(buf[:0], make([]byte, segment.PageHeaderBytes)...), '[')
	w.rows = 0
}

func (w *Writer) comma() {
	if len(w.page) > segment.PageHeaderBytes+1 {
		w.page = append(w.page, ',')
	}
}

// Bytes is how much JSON there is so far, in complete pages and in the one being filled.
func (w *Writer) Bytes() uint64 {
	return w.base.Bytes + uint64(len(w.page)-segment.PageHeaderBytes)
}

// Row adds a row of the snapshot, rendered by p. The error is first's or the store's; the writer is then spent.
func (w *Writer) Row(p *shape.Projection, row pg.Row) error {
	w.comma()
	w.page = p.AppendRow(w.page, row)
	return w.added()
}

// Change adds a row of an earlier base or of the log. The error is as Row's.
func (w *Writer) Change(p *shape.Projection, c *shape.Change) error {
	w.comma()
	w.page = p.AppendAsRow(w.page, c)
	return w.added()
}

func (w *Writer) added() error {
	w.rows++
	if len(w.page)-segment.PageHeaderBytes-1 < min(pageBytes[min(int(w.base.Pages), len(pageBytes)-1)], w.bytesMax) {
		return nil
	}
	return w.put(false)
}

// End stores the last page, and waits for all of them.
func (w *Writer) End(s pg.Snapshot) (catalog.Base, error) {
	w.comma()
	w.page = shape.AppendSnapshotEnd(w.page, s)
	err := w.put(true)
	if werr := w.puts.Wait(); err == nil {
		err = werr
	}
	return w.base, err
}

// Abandon waits for the pages under way. It does no harm after End.
func (w *Writer) Abandon() { _ = w.puts.Wait() } // whoever abandons has an error of his own

func (w *Writer) put(last bool) error {
	page, n := append(w.page, ']'), w.base.Pages
	segment.SealPage(page, last, w.rows)
	w.base.Pages++
	w.base.Rows += uint64(w.rows)
	w.base.Bytes += uint64(len(page) - segment.PageHeaderBytes)
	store := func() error {
		defer func() { w.free <- page }()
		_, err := w.store.Put(w.ctx, w.handle.PageKey(n), page, object.Always())
		if err != nil {
			return fmt.Errorf("put page %s: %w", w.handle.PageKey(n), err)
		}
		return nil
	}
	switch {
	case n > 0:
		w.puts.Go(store)
	default:
		if err := store(); err != nil {
			return err
		}
		if !last { // else the base is complete: one record says it all
			if err := w.first(); err != nil {
				return err
			}
		}
	}
	select {
	case buf := <-w.free: // as many buffers as pages under way, and the one that is filled
		w.begin(buf)
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// Find looks for a base that was complete when its writer died before saying so. It returns nil if there is none.
func Find(ctx context.Context, store object.Reader, h shape.Handle) (*catalog.Base, error) {
	var b catalog.Base
	for {
		key := h.PageKey(b.Pages)
		o, err := store.Get(ctx, key, object.Range{Length: segment.PageHeaderBytes})
		if errors.Is(err, object.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("get page %s: %w", key, err)
		}
		head, err := segment.DecodePageHeader(o.Body)
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", key, err)
		}
		b.Pages++
		b.Rows += uint64(head.Rows)
		b.Bytes += uint64(head.Bytes)
		if head.Last {
			return &b, nil
		}
	}
}
