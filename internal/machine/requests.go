package machine

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Bounds on the results that are remembered for retries.
const (
	// windowSlots is how many sequence numbers of one client there are: the
	// highest that ran and those before it.
	windowSlots = 64
	// rememberedFor is for how many milliseconds of cluster time.
	rememberedFor = 5 * 60_000
	// rememberedClients is how many clients there are. One without results is
	// kept until room is needed, so that its old requests are still refused;
	// one that was heard of within rememberedFor makes no room. Without
	// results a client takes some 200 bytes.
	rememberedClients = 100_000
	// rememberedBytes bounds the windows of all clients together; above it
	// those not used for longest are forgotten early, whole, and a retry of
	// what they held is refused.
	rememberedBytes = 128 << 20
	// resultBytes bounds one result. Of a larger one only the revision is
	// remembered, and a retry gets an error that says so: it is certain not to
	// run twice, and memory is bounded.
	resultBytes = 64 << 10
	// slotBytes is the size of a slot.
	slotBytes = 64
	// smallBytes is what a slot holds in itself. The result of a put has 16 to
	// 25 bytes.
	smallBytes = 31
	// forgetAtOnce bounds how many clients one entry forgets by age. A result
	// that is older than that but still there counts as forgotten.
	forgetAtOnce = 1024
)

// requests remembers the results of transactions with an id. What it does
// depends on the entries alone: the map is never gone through, and neither
// numbers in it nor those of clients and epochs show.
//
// Clients are numbered from 1 and stand in a ring by when they were heard of
// last; number 0 is where the ring begins and ends. Those without results come
// first in it: whole windows are forgotten, from the oldest on.
type requests struct {
	byID map[[16]byte]int32
	// windows and ring have an element for each client. What a snapshot has
	// captured of windows is copied before it changes, see own.
	windows []*window
	ring    []link
	// live is the oldest client with results, or 0; recent the one that was
	// looked up last.
	live, recent int32
	// bytes is the size of all windows.
	bytes int64
	// order numbers what is remembered, epoch what is captured.
	order, epoch uint64
	scratch      []byte
	// maxBytes and maxClients are constants but in tests.
	maxBytes   int64
	maxClients int
}

// link joins a client to those heard of before and after it.
type link struct{ older, newer int32 }

// window is what is remembered of one client.
type window struct {
	id [16]byte
	// highest is the highest sequence number that ran. What is above floor
	// and has no slot did not run; what is not above it may have, and is
	// forgotten, even where a slot still has it.
	floor, highest uint64
	// last is when a result came last, as the order-th of all.
	last  kv.Time
	order uint64
	// slots has, at its sequence number modulo the length, each result; the
	// length is a power of two, or 0. It grows only where two results need
	// one slot, since most clients have few.
	slots []slot
	// bytes counts slots and what they point at.
	bytes int64
	// epoch is the one in which the window was made; see own.
	epoch uint64
}

// slot holds a result, encoded as in result.go: in large, or where that is
// empty, in small. It fills a cache line.
type slot struct {
	seq   uint64 // 0 where there is none
	at    kv.Time
	large string
	n     uint8
	small [smallBytes]byte
}

func (s *slot) data() string {
	if s.large != "" {
		return s.large
	}
	return string(s.small[:s.n])
}

func newRequests() *requests {
	return &requests{
		byID:    map[[16]byte]int32{},
		windows: make([]*window, 1), ring: make([]link, 1),
		maxBytes: rememberedBytes, maxClients: rememberedClients,
	}
}

// clients is how many there are.
func (r *requests) clients() int { return len(r.windows) - 1 }

// copy captures what a snapshot needs: a pointer for each client.
func (r *requests) copy() *requests {
	r.epoch++
	return &requests{windows: slices.Clone(r.windows)}
}

// own returns a window to change, which no snapshot has.
func (r *requests) own(c int32) *window {
	w := r.windows[c]
	if w.epoch != r.epoch {
		again := *w
		again.slots, again.epoch = slices.Clone(w.slots), r.epoch
		w = &again
		r.windows[c] = w
	}
	return w
}

// lookUp returns the number of a client, or 0.
func (r *requests) lookUp(id *[16]byte) int32 {
	if c := r.recent; c != 0 && r.windows[c].id == *id {
		return c
	}
	c := r.byID[*id]
	if c != 0 {
		r.recent = c
	}
	return c
}

// find returns the result of a request that ran, or nil where it did not, or an
// error where that is not known, or where there is no room to remember it.
func (r *requests) find(id kv.RequestID, now kv.Time) (*kv.TxnResult, error) {
	c := r.lookUp(&id.Client)
	if c == 0 {
		if oldest := r.ring[0].newer; r.clients() >= r.maxClients && now-r.windows[oldest].last < rememberedFor {
			return nil, kv.ErrTooManyClients
		}
		return nil, nil
	}
	w := r.windows[c]
	if id.Seq <= w.floor {
		return nil, kv.ErrRequestTooOld
	}
	if len(w.slots) == 0 {
		return nil, nil
	}
	s := w.slot(id.Seq)
	switch {
	case s.seq != id.Seq:
		return nil, nil
	case now-s.at >= rememberedFor:
		return nil, kv.ErrRequestTooOld
	}
	return decodeResult(s.data())
}

// remember keeps the result of a request that find did not know.
func (r *requests) remember(id kv.RequestID, now kv.Time, result *kv.TxnResult, h *runningHash) {
	c := r.lookUp(&id.Client)
	if c == 0 {
		c = r.admit(id.Client)
	}
	r.scratch = encodeResult(r.scratch[:0], result)
	data := r.scratch
	if len(data) > resultBytes {
		data = encodeTooLarge(nil, result)
		r.scratch = nil // it may be of any size
	}
	h.bytes(id.Client[:])
	h.mix(id.Seq, uint64(len(data)))
	w := r.own(c)
	r.bytes -= w.bytes
	w.put(id.Seq, now, data)
	r.bytes += w.bytes
	r.order++
	w.last, w.order = now, r.order
	r.touch(c)
	for r.bytes > r.maxBytes && r.live != 0 {
		r.forget()
	}
}

// slot returns where the result of seq belongs.
func (w *window) slot(seq uint64) *slot { return &w.slots[seq&uint64(len(w.slots)-1)] }

// put keeps a result that was not there.
func (w *window) put(seq uint64, now kv.Time, data []byte) {
	if seq > w.highest {
		if w.highest = seq; seq > windowSlots {
			w.floor = max(w.floor, seq-windowSlots)
		}
	}
	for len(w.slots) == 0 || len(w.slots) < windowSlots && w.slot(seq).seq > w.floor {
		w.grow()
	}
	s := w.slot(seq)
	w.bytes -= int64(len(s.large))
	s.seq, s.at = seq, now
	if len(data) <= smallBytes {
		s.large, s.n = "", uint8(copy(s.small[:], data))
		return
	}
	s.large, s.n = string(data), 0
	w.bytes += int64(len(data))
}

// grow doubles the slots, and lets go of what is forgotten.
func (w *window) grow() {
	old := w.slots
	w.slots = make([]slot, max(1, 2*len(old)))
	w.bytes = int64(len(w.slots)) * slotBytes
	for i := range old {
		if s := &old[i]; s.seq > w.floor {
			*w.slot(s.seq) = *s
			w.bytes += int64(len(s.large))
		}
	}
}

// admit gives a new client a number, that of the oldest when there is no room:
// find made sure that it was not heard of for long.
func (r *requests) admit(id [16]byte) int32 {
	w := &window{id: id, epoch: r.epoch}
	c := r.ring[0].newer
	if r.clients() < r.maxClients {
		return r.add(w)
	}
	if c == r.live {
		r.forget()
	}
	delete(r.byID, r.windows[c].id)
	r.windows[c], r.byID[id] = w, c
	return c
}

// add numbers a window, which touch puts into the ring.
func (r *requests) add(w *window) int32 {
	c := int32(len(r.windows))
	r.windows, r.ring = append(r.windows, w), append(r.ring, link{c, c})
	r.byID[w.id] = c
	return c
}

// touch moves a client with results to the end of the ring.
func (r *requests) touch(c int32) {
	l := &r.ring[c]
	if r.live == c {
		r.live = l.newer
	}
	r.ring[l.older].newer, r.ring[l.newer].older = l.newer, l.older
	newest := r.ring[0].older
	*l = link{older: newest}
	r.ring[newest].newer, r.ring[0].older = c, c
	if r.live == 0 {
		r.live = c
	}
}

// forgetOld forgets at most that many clients by age.
func (r *requests) forgetOld(now kv.Time, most int) {
	for ; most > 0 && r.live != 0 && now-r.windows[r.live].last >= rememberedFor; most-- {
		r.forget()
	}
}

// forget forgets the results of the oldest client that has any.
func (r *requests) forget() {
	w := *r.windows[r.live]
	r.bytes -= w.bytes
	w.floor, w.slots, w.bytes, w.epoch = w.highest, nil, 0, r.epoch
	r.windows[r.live] = &w
	r.live = r.ring[r.live].newer
}
