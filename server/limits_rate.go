package server

import (
	"hash/maphash"
	"sync"
	"time"
)

// A table of limits remembers callers in a fixed number of places: shards, each
// with a lock of its own, of sets, of ways. A caller may be in the ways of one
// set, which its seeded hash names, and takes there the place of the one that
// has been quiet longest. So no flood of names makes a table larger, and none
// picks whom it displaces.
const (
	tableShards = 64
	tableSets   = 64
	tableWays   = 8
)

// place is what a table knows of a caller. What value means depends on the
// table; the smallest in a set is replaced.
type place struct {
	key   uint64
	value int64
	extra int64
}

type table struct {
	seed   maphash.Seed
	shards [tableShards]struct {
		mu     sync.Mutex
		places [tableSets][tableWays]place
		_      [40]byte
	}
}

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

// at finds the place of key, or the one to use for it. The caller unlocks.
func (t *table) at(key uint64) (p *place, unlock *sync.Mutex) {
	shard := &t.shards[key%tableShards]
	set := &shard.places[key/tableShards%tableSets]
	shard.mu.Lock()
	oldest := &set[0]
	for i := range set {
		if p := &set[i]; p.key == key {
			return p, &shard.mu
		} else if p.value < oldest.value {
			oldest = p
		}
	}
	*oldest = place{key: key}
	return oldest, &shard.mu
}

// key is that of a caller of a kind: 'u' for a name, 't' for a token, 'a' for an
// address that is none of IP. It is never 0, which no caller has.
func (t *table) key(kind byte, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_ = h.WriteByte(kind)
	_, _ = h.WriteString(name)
	return max(1, h.Sum64())
}

// address is the key of an address.
func (t *table) address(a address) uint64 {
	if !a.ip.IsValid() {
		return t.key('a', a.name)
	}
	bytes := a.ip.As16()
	return max(1, maphash.Bytes(t.seed, bytes[:]))
}

// rates bounds how often callers come: on average one an interval, and burst at
// once. Source: the generic cell rate algorithm, ITU-T I.371, annex A, in its
// form of virtual scheduling: a caller's value is the time at which all that it
// has done would be done at the allowed rate.
type rates struct {
	*table
	began           time.Time
	interval, burst time.Duration
}

// newRates admits perSecond of a caller, and burst at once.
func newRates(perSecond float64, burst int) *rates {
	interval := max(1, time.Duration(float64(time.Second)/perSecond))
	return &rates{table: newTable(), began: time.Now(), interval: interval, burst: interval * time.Duration(burst)}
}

// take admits one request of key, or tells how long to wait for that.
func (r *rates) take(key uint64) (wait time.Duration) {
	now := int64(time.Since(r.began))
	p, lock := r.at(key)
	done := max(p.value, now) + int64(r.interval)
	if wait = time.Duration(done-now) - r.burst; wait > 0 {
		lock.Unlock()
		return wait
	}
	p.value = done
	lock.Unlock()
	return 0
}
