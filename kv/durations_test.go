package kv_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// TestDurationBounds: the grid has the bounds of both kinds of histograms, in
// order, and a duration on a bound belongs below it.
func TestDurationBounds(t *testing.T) {
	bounds := map[float64]bool{}
	for i := range kv.DurationCells - 1 {
		b := kv.DurationBound(i)
		if i > 0 && b <= kv.DurationBound(i-1) {
			t.Fatalf("bound %d is %v after %v", i, b, kv.DurationBound(i-1))
		}
		bounds[b] = true
		at := time.Duration(math.Floor(b * 1e9))
		if got := kv.DurationCell(at); got != i {
			t.Errorf("%v counts in cell %d, want %d", at, got, i)
		}
		if got := kv.DurationCell(at + 1); got != i+1 {
			t.Errorf("%v counts in cell %d, want %d", at+1, got, i+1)
		}
	}
	for i := -20 * 8; i <= 6*8; i++ {
		want := math.Exp2(float64(i) / 8)
		if !slices.ContainsFunc(slices.Collect(keys(bounds)), func(b float64) bool { return math.Abs(b/want-1) < 1e-15 }) {
			t.Errorf("no bound at 2 to the power of %d/8", i)
		}
	}
	for i := -4; i <= 15; i++ {
		if want := math.Ldexp(0.001, i); !bounds[want] {
			t.Errorf("no bound at %v s", want)
		}
	}
	for d, want := range map[time.Duration]int{-1: 0, 0: 0, 1: 0, math.MaxInt64: kv.DurationCells - 1, 64 * time.Second: kv.DurationCells - 2} {
		if got := kv.DurationCell(d); got != want {
			t.Errorf("%v counts in cell %d, want %d", d, got, want)
		}
	}
	for s := range 1 << 16 { // no bound is skipped on the way
		d := time.Duration(math.Exp2(10 + 27*float64(s)/(1<<16)))
		cell := kv.DurationCell(d)
		if d.Seconds() > kv.DurationBound(cell) || cell > 0 && d.Seconds() <= kv.DurationBound(cell-1) {
			t.Fatalf("%v counts in cell %d, up to %v", d, cell, kv.DurationBound(cell))
		}
	}
	if !math.IsInf(kv.DurationBound(kv.DurationCells-1), 1) {
		t.Error("the last cell has a bound")
	}
}

func keys(m map[float64]bool) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestDurationQuantile compares with the sorted durations themselves.
func TestDurationQuantile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var c kv.DurationCounter
	var all []time.Duration
	var sum time.Duration
	for range 10_000 {
		d := time.Duration(math.Exp2(10+25*r.Float64())) + time.Microsecond
		c.Add(d)
		sum += d
		all = append(all, d)
	}
	slices.Sort(all)
	d := c.Load()
	if d.Count() != 10_000 || d.Sum != sum {
		t.Fatalf("%d durations of %v together, want 10000 of %v", d.Count(), d.Sum, sum)
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := all[int(math.Ceil(q*10_000))-1]
		if got := d.Quantile(q); math.Abs(got.Seconds()/want.Seconds()-1) > 0.0906 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	later := c.Load()
	later.Counts[5]++
	later.Sum += time.Second
	if s := later.Since(&d); s.Count() != 1 || s.Counts[5] != 1 || s.Sum != time.Second {
		t.Errorf("%d of %v came since, want 1 of 1s", s.Count(), s.Sum)
	}
	twice := d
	twice.Add(&d)
	if twice.Count() != 20_000 || twice.Sum != 2*sum {
		t.Errorf("%d of %v, added to themselves", twice.Count(), twice.Sum)
	}
	if got := new(kv.Durations).Quantile(0.5); got != 0 {
		t.Errorf("the quantile of nothing is %v", got)
	}
	var long kv.DurationCounter
	long.Add(time.Hour)
	if d := long.Load(); d.Quantile(0.5) != 64*time.Second {
		t.Errorf("the quantile of an hour is %v, want the last bound", d.Quantile(0.5))
	}
}

// BenchmarkDurationCounter measures what it costs to count one.
func BenchmarkDurationCounter(b *testing.B) {
	var c kv.DurationCounter
	for i := range b.N {
		c.Add(time.Duration(i&0xfffff) * 37)
	}
}

// BenchmarkDurationCounterParallel does so on all processors.
func BenchmarkDurationCounterParallel(b *testing.B) {
	var c kv.DurationCounter
	b.RunParallel(func(p *testing.PB) {
		for d := time.Duration(0); p.Next(); d += 37 {
			c.Add(d & 0xfffff)
		}
	})
}
