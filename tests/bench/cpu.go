package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for what /proc shows.
const ticksPerSecond = 100

// stat is what /proc/<pid>/stat says of a process.
type stat struct {
	parent int
	ticks  int // of its own and of its ended children that were waited for
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("read the process table: %w", err)
	}
	// The name stands in parentheses and may hold anything: the fields are counted from its end.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 15 {
		return stat{}, fmt.Errorf("process %d: %d fields", pid, len(f))
	}
	var n [5]int
	for i, at := range []int{1, 11, 12, 13, 14} { // ppid, utime, stime, cutime, cstime
		if n[i], err = strconv.Atoi(f[at]); err != nil {
			return stat{}, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return stat{parent: n[0], ticks: n[1] + n[2] + n[3] + n[4]}, nil
}

func parentOf(pid int) (int, error) {
	s, err := readStat(pid)
	return s.parent, err
}

// cpuOfTree returns the CPU seconds of a process and all its descendants, ended ones included. It only grows.
func cpuOfTree(root int) float64 {
	paths, _ := filepath.Glob("/proc/[0-9]*")
	all := make(map[int]stat)
	for _, p := range paths {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil { // else it has ended meanwhile
			all[pid] = s
		}
	}
	ticks := 0
	for pid, s := range all {
		for at := pid; at != 0; at = all[at].parent {
			if at == root {
				ticks += s.ticks
				break
			}
		}
	}
	return float64(ticks) / ticksPerSecond
}
