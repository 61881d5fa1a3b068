// Package crash kills, stops and starves the processes while they work, and asks afterwards whether anybody noticed.
// It owns the scenarios: SIGKILL at random and at the points of the commit path that the binary names, takeover
// between two ingests, a bucket without space, a Postgres that restarts, a table too large for memory. The tables,
// the writers and what clients must hold come from tests/oracle; processes and the checking client from
// tests/harness.
//
// The one idea: a fault may cost time and nothing else. After each one every client that was there all along holds
// what Postgres holds, has seen no 409, and no message twice; the client itself refuses an offset that it has had.
package crash
