// Package chaos lets writers replace each other on a bucket whose every request may go wrong, with a compactor at work
// and readers on the tail, and asks whether anything was lost or told twice. Its writers are the real log, catalogue and
// compactor without a Postgres: transactions are numbered, and the same number always gives the same bytes, as a replay
// of the stream would.
//
// The one idea: what one writer reported durable is Postgres' to forget, so every later writer must find it, and every
// reader must see all transactions, each once and in order, however many writers told them.
package chaos
