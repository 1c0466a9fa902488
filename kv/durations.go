package kv

import (
	"math"
	"sync/atomic"
	"time"
)

// The grid on which [Durations] are counted. Its bounds are those of
// Prometheus's native histograms of schema 3, eight to each doubling, and one
// more in each doubling, so that it also has the customary 1 ms, 2 ms, 4 ms ….
// Source: Prometheus, "Native Histograms" (specification), schemas.
const (
	// durationCuts is how many bounds there are in a doubling.
	durationCuts = 9
	// The bounds reach from 2 to the power of the first, in seconds (about
	// 1 µs), to that of the second (64 s).
	firstOctave, lastOctave = -20, 6

	// DurationCells is how many counts [Durations] have.
	DurationCells = (lastOctave-firstOctave)*durationCuts + 2
)

// cuts are the bounds in a doubling as shares of its lower end.
var cuts = [durationCuts]float64{
	1.024,              // 1 ms is 1.024 · 2⁻¹⁰ s
	1.0905077326652577, // 2 to the power of 1/8, and so on
	1.189207115002721,
	1.2968395546510096,
	1.414213562373095,
	1.5422108254079407,
	1.681792830507429,
	1.8340080864093424,
	2,
}

// Durations tells how long something took, how often.
type Durations struct {
	// Counts[i] took at most [DurationBound](i) and more than
	// DurationBound(i-1); the last one counts all that took longer.
	Counts [DurationCells]uint64
	Sum    time.Duration
}

// DurationCell is the index in [Durations.Counts] of what took d.
func DurationCell(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	bits := math.Float64bits(float64(d) / 1e9) // Correctly rounded, so that whole bounds are met.
	octave := int(bits>>52) - 1023
	share := math.Float64frombits(bits&(1<<52-1) | 1023<<52)
	switch {
	case octave >= lastOctave && (octave > lastOctave || share > 1):
		return DurationCells - 1
	case octave < firstOctave:
		return 0
	}
	cell := (octave-firstOctave)*durationCuts + 1
	if share == 1 {
		return cell - 1
	}
	// The four highest bits of the share leave at most two cuts to look at.
	at := firstCuts[bits>>48&15]
	for share > cuts[at] {
		at++
	}
	return cell + int(at)
}

// firstCuts are, for each sixteenth of a doubling, the first of cuts that is not
// below it.
var firstCuts = [16]uint8{0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 8, 8}

// DurationBound is the longest time that counts in cell i, in seconds; the last
// cell has none, which is +Inf.
func DurationBound(i int) float64 {
	switch {
	case i <= 0:
		return math.Ldexp(1, firstOctave)
	case i >= DurationCells-1:
		return math.Inf(1)
	}
	return math.Ldexp(cuts[(i-1)%durationCuts], firstOctave+(i-1)/durationCuts)
}

// Count is how many there were.
func (d *Durations) Count() (n uint64) {
	for _, c := range d.Counts {
		n += c
	}
	return n
}

// Since returns those that came after before was taken of the same.
func (d *Durations) Since(before *Durations) Durations {
	out := Durations{Sum: d.Sum - before.Sum}
	for i := range d.Counts {
		out.Counts[i] = d.Counts[i] - before.Counts[i]
	}
	return out
}

// Add counts those of other, too.
func (d *Durations) Add(other *Durations) {
	d.Sum += other.Sum
	for i := range d.Counts {
		d.Counts[i] += other.Counts[i]
	}
}

// Quantile is what a share q of them took at most, between the bounds of a cell
// in proportion; 0 when there are none. It is off by 9 % at most, from 1 µs to
// 64 s.
func (d *Durations) Quantile(q float64) time.Duration {
	rank, below, lower := q*float64(d.Count()), 0.0, 0.0
	for i, c := range d.Counts {
		upper := DurationBound(i)
		if c > 0 && below+float64(c) >= rank {
			if i < len(d.Counts)-1 {
				lower += (upper - lower) * (rank - below) / float64(c)
			}
			return time.Duration(math.Round(lower * 1e9))
		}
		below, lower = below+float64(c), upper
	}
	return 0
}

// DurationCounter is [Durations] while they are counted. Its methods may be
// called concurrently; the zero value has none.
type DurationCounter struct {
	counts [DurationCells]atomic.Uint64
	sum    atomic.Int64
}

// Add counts one. It costs two atomic additions.
func (c *DurationCounter) Add(took time.Duration) {
	c.counts[DurationCell(took)].Add(1)
	c.sum.Add(int64(took))
}

// Load returns what was counted.
func (c *DurationCounter) Load() (d Durations) {
	for i := range c.counts {
		d.Counts[i] = c.counts[i].Load()
	}
	d.Sum = time.Duration(c.sum.Load())
	return d
}
