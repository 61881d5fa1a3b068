package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// benchmarkLine finds the size, the time and, if there are any, the probes in a line of `go test -bench`.
var (
	benchmarkLine = regexp.MustCompile(`^(Benchmark\w+)/\D*(\d+)\S*\s+\d+\s+([\d.]+) ns/op(.*)$`)
	probesPart    = regexp.MustCompile(`([\d.]+) probes/\S+`)
)

// g10Name is the benchmark in ingest/match: sub-benchmarks named by the number of shapes.
const g10Name = "^BenchmarkMatch$"

// runG10 runs the matcher's own benchmark: one row, one indexable conjunct, at four sizes.
func runG10(ctx context.Context, s settings) (measured, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", g10Name, "-count", strconv.Itoa(s.repeats),
		"./ingest/match")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return measured{}, fmt.Errorf("go test -bench %s ./ingest/match: %w: %s", g10Name, err, out)
	}
	times, probes := parseBenchmark(string(out))
	base := times[100]
	if len(base) == 0 {
		return measured{}, fmt.Errorf("%w: ingest/match has no benchmark %s with the size 100", errCannotRun, g10Name)
	}
	var m measured
	var figures []string
	var worst sample
	for _, n := range slices.Sorted(maps.Keys(times)) {
		ratio := times[n].median() / base.median()
		line := fmt.Sprintf("%d shapes: %s ns a row, %.2fx", n, times[n].spread("%.0f"), ratio)
		if p, ok := probes[n]; ok {
			line += fmt.Sprintf(", %s probes", p)
		}
		m.lines = append(m.lines, line)
		figures = append(figures, fmt.Sprintf("%.0f", times[n].median()))
		worst = append(worst, ratio)
	}
	m.figure = fmt.Sprintf("%.2fx, %s ns", slices.Max(worst), strings.Join(figures, "/"))
	return m, nil
}

// parseBenchmark reads the nanoseconds of each size, and the probes where the benchmark reports them.
func parseBenchmark(out string) (times map[int]sample, probes map[int]string) {
	times, probes = map[int]sample{}, map[int]string{}
	for line := range strings.Lines(out) {
		f := benchmarkLine.FindStringSubmatch(strings.TrimSpace(line))
		if f == nil {
			continue
		}
		n, err := strconv.Atoi(f[2])
		ns, nerr := strconv.ParseFloat(f[3], 64)
		if err != nil || nerr != nil {
			continue
		}
		times[n] = append(times[n], ns)
		if p := probesPart.FindStringSubmatch(f[4]); p != nil {
			probes[n] = p[1]
		}
	}
	return times, probes
}
