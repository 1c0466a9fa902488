package machine

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// recordOverhead is what a version counts for beside its key and value.
const recordOverhead = 64

const (
	maxSamples  = 256
	sampleBytes = 4 << 20 // written since the last sample
	sampleTime  = 2000    // milliseconds since the last sample
)

// sample says that at that cluster time that revision was the latest, and how
// many bytes had been written by then.
type sample struct {
	time     kv.Time
	revision kv.Revision
	written  int64
}

// history relates revisions to time and to bytes, so that history can be
// compacted by age and by size. It is part of the state: a new leader, or a
// member just restarted, knows as much as the old one. When there are many
// samples every second of the older half is dropped, so the recent past is
// known best.
type history struct {
	samples []sample
}

// sample notes where the store is, unless it was just noted.
func (h *history) sample(now kv.Time, rev kv.Revision, written int64) {
	if n := len(h.samples); n > 0 {
		last := h.samples[n-1]
		if rev == last.revision || written-last.written < sampleBytes && now-last.time < sampleTime {
			return
		}
	}
	if len(h.samples) == maxSamples {
		kept := h.samples[:0]
		for i, s := range h.samples {
			if i >= maxSamples/2 || i%2 == 0 {
				kept = append(kept, s)
			}
		}
		h.samples = kept
	}
	h.samples = append(h.samples, sample{now, rev, written})
}

// at returns the latest revision known to be at least that old, or 0.
func (h *history) at(t kv.Time) (rev kv.Revision) {
	for _, s := range h.samples {
		if s.time <= t {
			rev = s.revision
		}
	}
	return rev
}

// within returns the earliest known revision after which at most that many
// bytes were written, or 0 when that is all there is.
func (h *history) within(bytes, written int64, current kv.Revision) kv.Revision {
	if len(h.samples) == 0 || written-h.samples[0].written <= bytes {
		return 0
	}
	for _, s := range h.samples {
		if written-s.written <= bytes {
			return s.revision
		}
	}
	return current
}

// compacted drops what lies before the oldest revision kept.
func (h *history) compacted(rev kv.Revision) {
	h.samples = slices.DeleteFunc(h.samples, func(s sample) bool { return s.revision < rev })
}

func (h *history) copy() history { return history{samples: slices.Clone(h.samples)} }
