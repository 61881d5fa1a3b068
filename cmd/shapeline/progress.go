package main

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/shapeline/shapeline/ingest"
	"github.com/shapeline/shapeline/internal/shape"
)

// logEvery is how often a snapshot that takes long is logged where there is no terminal.
const logEvery = 5 * time.Second

// snapshots shows how far snapshots are: on a terminal a bar with rows and rate for each one that takes a while,
// elsewhere lines of the log.
type snapshots struct {
	terminal bool
	log      *slog.Logger

	mu  sync.Mutex
	all map[shape.Handle]*snapshotView
}

type snapshotView struct {
	bar  *progressbar.ProgressBar // on a terminal
	said time.Time
}

func newSnapshots(log *slog.Logger) *snapshots {
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	return &snapshots{terminal: terminal, log: log, all: make(map[shape.Handle]*snapshotView)}
}

// report is ingest.Config.Progress.
func (s *snapshots) report(p ingest.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.all[p.Handle]
	if v == nil {
		v = &snapshotView{said: time.Now()}
		if s.terminal && !p.Done { // one that is done at once needs no bar
			v.bar = progressbar.NewOptions64(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(),
				progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"), progressbar.OptionClearOnFinish(),
				progressbar.OptionSetDescription("snapshot of "+p.Table.String()))
		}
		s.all[p.Handle] = v
	}
	if v.bar != nil {
		_ = v.bar.Set64(int64(p.Rows)) // a terminal that is gone is no reason to stop
		if p.Done {
			_ = v.bar.Finish()
		}
	} else if p.Done || time.Since(v.said) > logEvery {
		v.said = time.Now()
		s.log.Info("snapshot", "table", p.Table.String(), "handle", p.Handle.String(), "rows", p.Rows, "bytes", p.Bytes,
			"done", p.Done, "took", p.Took.Round(time.Millisecond).String())
	}
	if p.Done {
		delete(s.all, p.Handle)
	}
}
