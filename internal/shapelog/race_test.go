//go:build race

package shapelog

// simShare divides the number of seeds: the race detector makes a run some ten times as long.
const simShare = 10
