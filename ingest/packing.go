package ingest

import (
	"context"

	"github.com/shapeline/shapeline/ingest/compact"
	"github.com/shapeline/shapeline/internal/segment"
)

// pipelineLog is the pipeline as the compactor sees it.
type pipelineLog struct{ e *engine }

// Durable implements compact.Log.
func (l pipelineLog) Durable() uint64 {
	seq, _ := l.e.durable.position()
	return seq
}

// Append implements compact.Log.
func (l pipelineLog) Append(ctx context.Context, r segment.Record) error {
	if err := l.e.command(ctx, func() { l.e.frame.records = append(l.e.frame.records, r) }); err != nil {
		return err
	}
	return l.e.stored(ctx)
}

// compactor returns the one that packs e's log.
func (e *engine) compactor() *compact.Compactor {
	return compact.New(compact.Config{
		Store: e.s.cfg.Store, State: e.state, Log: pipelineLog{e}, Writer: e.writer, Epoch: e.writer.Epoch(), Logger: e.s.log,
		PageBytes: int(e.chunkBytes), Retention: e.s.cfg.Retention,
	})
}
