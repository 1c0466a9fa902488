package machine

import (
	"encoding/binary"
	"math"

	"github.com/tidwall/btree"

	"github.com/concord-kv/concord/kv"
)

// Bounds on the results that are remembered for retries.
const (
	// rememberedResults is how many there are of one client: those with the
	// highest sequence numbers.
	rememberedResults = 64
	// rememberedFor is for how many milliseconds of cluster time.
	rememberedFor = 5 * 60_000
	// rememberedClients is how many clients there are. One without results is
	// kept until room is needed, so that its old requests are still refused.
	rememberedClients = 100_000
	// rememberedBytes bounds the results of all clients together; above it
	// the oldest are forgotten early, and a retry of them is refused.
	rememberedBytes = 128 << 20
	// resultBytes bounds one result. Of a larger one only the revision is
	// remembered, and a retry gets an error that says so: it is certain not to
	// run twice, and memory is bounded.
	resultBytes = 64 << 10
	// resultOverhead is what a result takes beside its own bytes.
	resultOverhead = 256
	// forgetAtOnce bounds how many results one entry forgets by age. What is
	// older than that but still there counts as forgotten.
	forgetAtOnce = 1024
)

// requests remembers the results of transactions with an id. Its trees are
// copied in O(1) for a snapshot.
type requests struct {
	// clients by their id, results by client id and sequence number (big
	// endian).
	clients *btree.Map[string, client]
	results *btree.Map[string, remembered]
	bytes   int64
	// oldest has the keys of results by age, idle the ids of clients without
	// results by how long they have none. Both follow from the maps above.
	oldest, idle *btree.Map[uint64, string]
	// count numbers what is remembered.
	count uint64
}

type client struct {
	// floor is the highest sequence number forgotten: what is not above it
	// and not remembered may have run.
	floor   uint64
	results int
	// idle is the client's place among the idle, or 0.
	idle uint64
}

type remembered struct {
	at    kv.Time
	order uint64
	data  string // an encoded result, see result.go
}

func (r remembered) size() int64 { return int64(len(r.data)) + resultOverhead }

func newRequests() *requests {
	return &requests{
		clients: new(btree.Map[string, client]),
		results: new(btree.Map[string, remembered]),
		oldest:  new(btree.Map[uint64, string]),
		idle:    new(btree.Map[uint64, string]),
	}
}

// copy captures what a snapshot needs.
func (r *requests) copy() *requests {
	return &requests{clients: r.clients.Copy(), results: r.results.Copy(), count: r.count}
}

func requestKey(id kv.RequestID) string {
	var key [24]byte
	copy(key[:], id.Client[:])
	binary.BigEndian.PutUint64(key[16:], id.Seq)
	return string(key[:])
}

// find returns the result of a request that ran, or nil where it did not, or an
// error where that is not known, or where there is no room to remember it.
func (r *requests) find(id kv.RequestID, now kv.Time) (*kv.TxnResult, error) {
	c, known := r.clients.Get(string(id.Client[:]))
	if !known {
		if r.clients.Len() >= rememberedClients && r.idle.Len() == 0 {
			return nil, kv.ErrTooManyClients
		}
		return nil, nil
	}
	if e, ok := r.results.Get(requestKey(id)); ok && now-e.at < rememberedFor {
		return decodeResult(e.data)
	} else if ok || id.Seq <= c.floor {
		return nil, kv.ErrRequestTooOld
	}
	return nil, nil
}

// remember keeps the result of a request that find did not know.
func (r *requests) remember(id kv.RequestID, now kv.Time, result *kv.TxnResult, h *runningHash) {
	name := string(id.Client[:])
	c, known := r.clients.Get(name)
	if !known && r.clients.Len() >= rememberedClients {
		_, longest, _ := r.idle.PopMin()
		r.clients.Delete(longest)
	}
	if c.idle != 0 {
		r.idle.Delete(c.idle)
		c.idle = 0
	}
	r.count++
	e := remembered{at: now, order: r.count, data: string(encodeResult(nil, result))}
	if len(e.data) > resultBytes {
		e.data = string(encodeTooLarge(nil, result))
	}
	h.bytes(id.Client[:])
	h.mix(id.Seq, uint64(len(e.data)))
	key := requestKey(id)
	r.results.Set(key, e)
	r.oldest.Set(e.order, key)
	r.bytes += e.size()
	c.results++
	r.clients.Set(name, c)
	if c.results > rememberedResults {
		r.forgetLowest(name)
	}
	r.forgetOld(now, 2)
	for r.bytes > rememberedBytes {
		_, key, _ := r.oldest.Min()
		r.forget(key)
	}
}

// forgetLowest forgets a client's result with the lowest sequence number.
func (r *requests) forgetLowest(name string) {
	lowest := ""
	r.results.Ascend(name, func(key string, _ remembered) bool {
		lowest = key
		return false
	})
	r.forget(lowest)
}

// forgetOld forgets at most that many results by age.
func (r *requests) forgetOld(now kv.Time, most int) {
	for ; most > 0; most-- {
		_, key, ok := r.oldest.Min()
		if !ok {
			return
		}
		if e, _ := r.results.Get(key); now-e.at < rememberedFor {
			return
		}
		r.forget(key)
	}
}

func (r *requests) forget(key string) {
	e, _ := r.results.Delete(key)
	r.oldest.Delete(e.order)
	r.bytes -= e.size()
	name := key[:16]
	c, _ := r.clients.Get(name)
	c.floor = max(c.floor, binary.BigEndian.Uint64([]byte(key[16:])))
	if c.results--; c.results == 0 {
		r.count++
		c.idle = r.count
		r.idle.Set(c.idle, name)
	}
	r.clients.Set(name, c)
}

// index makes what follows from clients and results, and tells whether they
// belong together.
func (r *requests) index() bool {
	counted := map[string]int{}
	good := true
	r.results.Scan(func(key string, e remembered) bool {
		counted[key[:16]]++
		_, twice := r.oldest.Set(e.order, key)
		r.bytes += e.size()
		good = !twice && e.order <= r.count
		return good
	})
	if !good {
		return false
	}
	for name, n := range counted { // in any order: each sets its own client
		c, known := r.clients.Get(name)
		if c.results = n; !known {
			return false
		}
		r.clients.Set(name, c)
	}
	r.clients.Scan(func(name string, c client) bool {
		twice := false
		if c.idle != 0 {
			_, twice = r.idle.Set(c.idle, name)
		}
		good = !twice && (c.results == 0) == (c.idle != 0) && c.idle <= r.count
		return good
	})
	return good && r.clients.Len() <= rememberedClients && r.count < math.MaxInt64
}
