package main

import (
	"fmt"
	"os"
	"testing"
)

func TestSample(t *testing.T) {
	s := sample{5, 1, 4, 2}
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"median of four", s.median(), 3}, {"median of three", s[:3].median(), 4}, {"p50", s.percentile(50), 2},
		{"p99", s.percentile(99), 5}, {"p100", s.percentile(100), 5}, {"p0", s.percentile(0), 1},
		{"p51", s.percentile(51), 4},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
	if got, want := s.spread("%.1f"), "3.0 [1.0, 5.0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A mark may be cut anywhere between two reads, and must be seen once.
func TestArrivedAcrossReads(t *testing.T) {
	text := "xm0000000003y m000000000 mm0000000001\x00m0000000009m0000000002"
	for cut := range text {
		a := newArrivals(5)
		rest := append([]byte(nil), a.arrived([]byte(text[:cut]))...)
		a.arrived(append(rest, text[cut:]...))
		got := ""
		for n := range a.received {
			if a.received[n].Load() != 0 {
				got += fmt.Sprint(n)
			}
		}
		if got != "123" || a.discarded.Load() != 0 {
			t.Errorf("cut at %d: saw %s, %d twice", cut, got, a.discarded.Load())
		}
	}
}

func TestParseBenchmark(t *testing.T) {
	times, probes := parseBenchmark(`goos: linux
BenchmarkMatch/shapes=100-2   	 5000000	       101.5 ns/op	         1.000 probes/op	       0 B/op
BenchmarkMatch/shapes=100-2   	 5000000	       103.5 ns/op	         1.000 probes/op	       0 B/op
BenchmarkMatch/shapes=100000-2	 5000000	       150 ns/op
BenchmarkOther-2	 5000000	       150 ns/op
PASS`)
	if len(times) != 2 || len(times[100]) != 2 || times[100].median() != 102.5 || times[100000][0] != 150 ||
		probes[100] != "1.000" {
		t.Errorf("got %v, %v", times, probes)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		only string
		want int
	}{{"", 8}, {"G6", 1}, {"g4a, g10", 2}, {"G99", 0}} {
		if got, _ := choose(c.only); len(got) != c.want {
			t.Errorf("ONLY=%q chooses %d rows, want %d", c.only, len(got), c.want)
		}
	}
}

func TestCPUOfTree(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	before := cpuOfTree(os.Getpid())
	for n := 0; cpuOfTree(os.Getpid()) == before; n++ {
		if n > 1_000_000 {
			t.Fatal("no CPU time passes")
		}
	}
	parent, err := parentOf(os.Getpid())
	if err != nil || parent != os.Getppid() {
		t.Errorf("parent %d, %v", parent, err)
	}
}
