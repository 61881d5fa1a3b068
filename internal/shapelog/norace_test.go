//go:build !race

package shapelog

const simShare = 1
