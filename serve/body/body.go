// Package body makes the bodies of answers and shares them. It owns the way from segments and pages of the bucket to
// the bytes that a client reads (a JSON array, or SSE frames), and the memory that all of them may take.
//
// It does not decide what answers a request: a catalog.Plan and an offset say which entries, a handle and a number
// which page. What differs from request to request (brackets, the up-to-date message) its caller adds.
//
// The one idea: a stretch of a log and a page never change, so everybody who wants the same at the same time holds
// one body, which is made once, counted once, and kept as long as there is room.
package body
