package sim

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"
)

// chance is one seeded stream of random numbers. Streams of different names
// are independent, so that a change to the workload does not move the faults.
type chance struct{ *rand.Rand }

func newChance(seed uint64, stream string) chance {
	h := uint64(14695981039346656037)
	for i := range len(stream) {
		h = (h ^ uint64(stream[i])) * 1099511628211
	}
	return chance{rand.New(rand.NewPCG(seed, h))}
}

// is reports true with probability p.
func (c chance) is(p float64) bool { return p > 0 && c.Float64() < p }

// between gives a duration in [lo, hi), evenly.
func (c chance) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(c.Int64N(int64(hi-lo)))
}

// exp gives a duration with the mean m, exponentially, at most 20 m.
func (c chance) exp(m time.Duration) time.Duration {
	return time.Duration(min(-math.Log(1-c.Float64()), 20) * float64(m))
}

// spread gives a duration in [lo, hi), evenly on a logarithmic scale: rates
// and delays of all magnitudes are equally likely.
func (c chance) spread(lo, hi time.Duration) time.Duration {
	return time.Duration(float64(lo) * math.Pow(float64(hi)/float64(lo), c.Float64()))
}

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

// entropy stands in for crypto/rand.Reader, from which etcd's Raft draws its
// election timeouts.
type entropy struct{ *rand.ChaCha8 }

func newEntropy(seed uint64) entropy {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	copy(key[8:], "raft entropy")
	return entropy{rand.NewChaCha8(key)}
}

func (e entropy) Read(b []byte) (int, error) { return e.ChaCha8.Read(b) }
