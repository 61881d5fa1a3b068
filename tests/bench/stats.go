package main

import (
	"fmt"
	"slices"
	"time"
)

// sample is a series of measurements of one thing.
type sample []float64

func (s sample) sorted() sample {
	c := slices.Clone(s)
	slices.Sort(c)
	return c
}

// median of an even number is the mean of the middle two. s must not be empty.
func (s sample) median() float64 {
	c := s.sorted()
	if n := len(c); n%2 == 0 {
		return (c[n/2-1] + c[n/2]) / 2
	}
	return c[len(c)/2]
}

// percentile returns the smallest value that p percent of s do not exceed. s must not be empty.
func (s sample) percentile(p float64) float64 {
	c := s.sorted()
	i := int(float64(len(c))*p/100+0.999999) - 1
	return c[min(max(i, 0), len(c)-1)]
}

// spread prints the median and, in brackets, the lowest and the highest.
func (s sample) spread(format string) string {
	return fmt.Sprintf(format+" ["+format+", "+format+"]", s.median(), slices.Min(s), slices.Max(s))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
