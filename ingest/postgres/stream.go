package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/shapeline/shapeline/internal/pg"
	"github.com/shapeline/shapeline/internal/shape"
)

const (
	statusInterval = time.Second           // between status updates: several fit into holderTimeout
	statusPause    = 20 * time.Millisecond // confirmations that come this close go out together
	writeTimeout   = 5 * time.Second       // for one status update

	// receiveTimeout is how long the server may be silent though each status update asks it to answer. It is what
	// Postgres' own standbys allow: a server that decodes a huge transaction can be silent for long.
	receiveTimeout = time.Minute
)

// ErrStreamEnded means that the server has ended the stream in order, as it does when it shuts down.
var ErrStreamEnded = errors.New("the server has ended the replication stream")

// Event is a message of the stream, or word of the server's position.
type Event struct {
	// Data is a message for pgoutput, nil for a keepalive. It is valid until the next Receive or Next.
	Data []byte

	// WALStart is where the message's record begins.
	WALStart pg.LSN

	// WALEnd is, for a keepalive, the position up to which the server has sent everything there was. Between
	// transactions, and with nothing left to make durable, it can be confirmed.
	WALEnd pg.LSN
}

// Start creates the slot if it is new, and begins to stream from there; zero, or a position before s.Confirmed, means
// s.Confirmed. It returns a *CheckError if somebody else goes on using the slot. After an error the session is spent.
func (s *Session) Start(ctx context.Context, from pg.LSN) error {
	s.stop()
	s.reporting.Wait()
	if s.SlotNew {
		if err := s.createSlot(ctx); err != nil {
			return err
		}
	}
	options := pglogrepl.StartReplicationOptions{Mode: pglogrepl.LogicalReplication, PluginArgs: []string{
		"proto_version '1'", "publication_names '" + shape.QuoteIdent(s.db.publication) + "'",
	}}
	for {
		if err := s.slotFree(ctx); err != nil {
			return err
		}
		err := pglogrepl.StartReplication(ctx, s.conn, shape.QuoteIdent(s.db.slot), pglogrepl.LSN(from), options)
		if err == nil {
			break
		}
		if code(err) != codeInUse { // somebody was quicker
			return fmt.Errorf("start replication from %s: %w", from, err)
		}
		if err := s.drain(ctx); err != nil {
			return fmt.Errorf("start replication from %s: %w", from, err)
		}
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.extendDeadline()
	s.reporting.Go(func() { s.report(alive) })
	s.reading.Go(func() { s.ahead.fail(s.read(alive)) })
	return nil
}

// drain reads to the end of a command that failed: pglogrepl stops at the error itself.
func (s *Session) drain(ctx context.Context) error {
	for {
		msg, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			return nil
		}
	}
}

// Receive returns the next event, waiting for it as long as ctx allows. After an error that is not ctx's the session
// is spent: close it and acquire another.
func (s *Session) Receive(ctx context.Context) (Event, error) {
	for {
		if event, ok, err := s.Next(); ok || err != nil {
			return event, err
		}
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Ready holds a token when Next may have an event or an error.
func (s *Session) Ready() <-chan struct{} { return s.ahead.ready }

// Next is Receive for a caller that waits for other things too: it returns the next event if there is one.
func (s *Session) Next() (Event, bool, error) {
	if s.next == len(s.batch.events) {
		s.next, s.from = 0, 0
		full, err := s.ahead.swap(s.batch)
		if full == nil {
			return Event{}, false, err
		}
		s.batch = full
	}
	p := s.batch.events[s.next]
	s.next++
	if p.keepalive {
		return Event{WALEnd: p.start}, true, nil
	}
	data := s.batch.data[s.from:p.end:p.end]
	s.from = p.end
	return Event{Data: data, WALStart: p.start}, true, nil
}

// Confirm says that everything before lsn is durable and need never be sent again (R1): the End of a transaction, or a
// keepalive's WALEnd. Smaller positions than the last are ignored. The server learns it soon; Close sees to the last.
func (s *Session) Confirm(lsn pg.LSN) {
	for {
		old := s.confirmed.Load()
		if uint64(lsn) <= old {
			return
		}
		if s.confirmed.CompareAndSwap(old, uint64(lsn)) {
			signal(s.wake)
			return
		}
	}
}

// read takes messages from the connection until ctx ends or the stream does. It goes around pgconn, whose own way to
// receive would close the connection on an error, under the feet of report.
func (s *Session) read(ctx context.Context) error {
	for {
		msg, err := s.conn.Frontend().Receive()
		if err != nil {
			return fmt.Errorf("read the replication stream: %w", err)
		}
		s.reads.Add(1)
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			err = s.copyData(ctx, msg.Data)
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone, *pgproto3.CommandComplete:
			return ErrStreamEnded
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			err = fmt.Errorf("unexpected message %T", msg)
		}
		if err != nil {
			return fmt.Errorf("read the replication stream: %w", err)
		}
	}
}

// copyData puts one message of the stream into the read-ahead buffer, waiting for room.
func (s *Session) copyData(ctx context.Context, b []byte) error {
	var p place
	var data []byte
	switch {
	case len(b) > 0 && b[0] == pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(b[1:])
		if err != nil {
			return err
		}
		p, data = place{start: pg.LSN(x.WALStart)}, x.WALData
	case len(b) > 0 && b[0] == pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(b[1:])
		if err != nil {
			return err
		}
		if k.ReplyRequested {
			signal(s.wake)
		}
		p = place{start: pg.LSN(k.ServerWALEnd), keepalive: true}
	default:
		return fmt.Errorf("unknown message of %d bytes", len(b))
	}
	for !s.ahead.put(data, p) {
		s.parked.Store(true)
		select {
		case <-s.ahead.room:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.parked.Store(false)
	}
	return nil
}

// report sends status updates until ctx ends: regularly, whatever the pipeline does, and soon after a confirmation.
// When it cannot write any more the stream is over.
func (s *Session) report(ctx context.Context) {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	ask := true
	for seen := uint64(0); ; {
		if err := s.sendStatus(ctx, ask); err != nil {
			s.ahead.fail(err)
			return
		}
		ask = false
		select {
		case <-ctx.Done():
			_ = s.sendStatus(ctx, false) // the last word; without it the server sends a little again
			return
		case <-s.wake:
			_ = pause(ctx, statusPause) // when ctx has ended the next turn sees it
		case <-tick.C:
			ask = true
			if reads := s.reads.Load(); reads != seen || s.parked.Load() {
				seen = reads
				s.extendDeadline()
			}
		}
	}
}

// sendStatus tells the server what is confirmed. Written and applied are the same: what is not durable in the bucket
// is nowhere.
func (s *Session) sendStatus(ctx context.Context, ask bool) error {
	if err := s.conn.Conn().SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("send a status update: %w", err)
	}
	err := pglogrepl.SendStandbyStatusUpdate(ctx, s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(s.confirmed.Load()), ReplyRequested: ask,
	})
	if err != nil {
		return fmt.Errorf("send a status update: %w", err)
	}
	return nil
}

// extendDeadline gives the server time to say something. A deadline that cannot be set belongs to a closed connection,
// which reading will find out.
func (s *Session) extendDeadline() {
	_ = s.conn.Conn().SetReadDeadline(time.Now().Add(receiveTimeout))
}
