package machine

import (
	"errors"
	"fmt"
	"testing"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// request is a transaction with an id, whose result has about n bytes.
func request(client, seq int, n int) []byte {
	id := kv.RequestID{Seq: uint64(seq)}
	copy(id.Client[:], fmt.Sprint("client", client))
	return EncodeTxn(nil, &kv.Txn{ID: id, Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k"), Value: make([]byte, n), PrevKV: true}}})
}

func TestRememberedResultsAreBounded(t *testing.T) {
	d := start(t)
	for seq := 2; seq <= 66; seq++ {
		d.apply(request(1, seq, 1))
	}
	before := d.View().Header() // closed by the machine's Close
	wantError(t, d.apply(request(1, 1, 1)), kv.ErrRequestTooOld)
	wantError(t, d.apply(request(1, 2, 1)), kv.ErrRequestTooOld)
	if r, ok := d.apply(request(1, 3, 1)).(*kv.TxnResult); !ok || r.Revision != 3 {
		t.Fatalf("got %v", r)
	}
	if d.header().Revision != before.Revision {
		t.Fatal("a retry ran")
	}
	// A large result is not kept, but the request does not run again.
	d.apply(request(2, 1, resultBytes))
	d.apply(request(2, 2, 1))
	d.restart()
	err, ok := d.apply(request(2, 2, 1)).(error)
	if !ok || !errors.Is(err, kv.ErrRequestTooOld) || !errors.Is(err, kv.ErrUnavailable) || err.Error() == kv.ErrRequestTooOld.Error() {
		t.Fatalf("got %v", err)
	}
	// The bytes of all; most of the bound is taken as used, to be quick.
	const used = rememberedBytes - 8<<20
	d.requests.bytes += used
	for seq := 1; seq <= 190; seq++ {
		d.apply(request(3+seq/64, 1+seq%64, 60<<10))
		if d.requests.bytes > rememberedBytes {
			t.Fatalf("%d bytes are remembered", d.requests.bytes)
		}
	}
	if d.requests.bytes < rememberedBytes-4<<20 { // a window is forgotten whole
		t.Fatalf("only %d bytes are remembered", d.requests.bytes)
	}
	d.requests.bytes -= used
	wantError(t, d.apply(request(3, 5, 1)), kv.ErrRequestTooOld)
	d.checkRequests()
	d.restart()
	d.checkRequests()
	// Age, in bounded steps: what is not yet forgotten is refused all the same.
	d.time += rememberedFor
	wantError(t, d.apply(request(1, 66, 1)), kv.ErrRequestTooOld)
	for d.requests.bytes > 0 {
		d.put("x", "")
	}
	d.checkRequests()
}

// checkRequests asserts that what is counted and linked is what is remembered.
func (d *driver) checkRequests() {
	d.Helper()
	d.requests.check(d.TB)
}

func (r *requests) check(t testing.TB) {
	t.Helper()
	bytes, seen, live, older := int64(0), 0, int32(0), int32(0)
	order, last := uint64(0), kv.Time(0)
	for c := r.ring[0].newer; c != 0; c = r.ring[c].newer {
		w := r.windows[c]
		bytes += w.bytes
		seen++
		if live == 0 && len(w.slots) > 0 {
			live = c
		}
		if r.byID[w.id] != c || r.ring[c].older != older || w.order <= order || w.last < last || live != 0 && len(w.slots) == 0 {
			t.Fatalf("client %d after %d: %+v", c, older, w)
		}
		older, order, last = c, w.order, w.last
		w.check(t)
	}
	if bytes != r.bytes || bytes > r.maxBytes || seen != r.clients() || seen != len(r.byID) || seen > r.maxClients || live != r.live || r.ring[0].older != older {
		t.Fatalf("%d bytes of %d, %d clients of %d, live %d of %d", r.bytes, bytes, seen, r.clients(), r.live, live)
	}
}

func (w *window) check(t testing.TB) {
	t.Helper()
	bytes := int64(len(w.slots)) * slotBytes
	for i := range w.slots {
		s := &w.slots[i]
		bytes += int64(len(s.large))
		if s.seq > w.highest || s.seq != 0 && (w.slot(s.seq) != s || s.at > w.last || s.data() == "") {
			t.Fatalf("slot %d: %+v", i, s)
		}
	}
	if bytes != w.bytes || w.floor > w.highest || w.highest-w.floor > windowSlots {
		t.Fatalf("%d bytes: %+v", bytes, w)
	}
}

// Requests that came out of order are forgotten out of order, and refused all
// the same.
func TestRememberedFloorNeverFalls(t *testing.T) {
	d := start(t)
	for _, seq := range []int{10, 5} {
		d.apply(request(1, seq, 1))
		d.time++
	}
	d.time += rememberedFor
	d.put("x", "")
	for _, seq := range []int{5, 7, 10} {
		wantError(t, d.apply(request(1, seq, 1)), kv.ErrRequestTooOld)
	}
	if _, ok := d.apply(request(1, 11, 1)).(*kv.TxnResult); !ok {
		t.Fatal("a new request was refused")
	}
}

func TestRememberedClientsAreBounded(t *testing.T) {
	d := start(t)
	for c := range rememberedClients {
		d.apply(request(c, 1, 0))
	}
	wantError(t, d.apply(request(rememberedClients, 1, 0)), kv.ErrTooManyClients)
	if _, ok := d.apply(request(7, 2, 0)).(*kv.TxnResult); !ok {
		t.Fatal("a known client was refused")
	}
	d.time += rememberedFor
	for d.requests.bytes > 0 {
		d.put("x", "")
	}
	if d.requests.clients() != rememberedClients {
		t.Fatal("clients are forgotten before room is needed")
	}
	wantError(t, d.apply(request(8, 1, 0)), kv.ErrRequestTooOld)
	for c := range 3 {
		if _, ok := d.apply(request(rememberedClients+c, 1, 0)).(*kv.TxnResult); !ok {
			t.Fatal("there was room for no more")
		}
	}
	if d.requests.clients() != rememberedClients {
		t.Fatalf("%d clients", d.requests.clients())
	}
	d.checkRequests()
}

// Nothing is allocated for the next small result of a known client.
func TestRememberAllocatesNothing(t *testing.T) {
	r, h, seq := newRequests(), runningHash(0), uint64(0)
	result := &kv.TxnResult{Ops: []kv.OpResult{{Kind: kv.OpPut}}}
	next := func() {
		seq++
		id := kv.RequestID{Client: [16]byte{byte(seq % 3)}, Seq: 1 + seq/3}
		if known, err := r.find(id, 1); known != nil || err != nil {
			t.Fatal(known, err)
		}
		r.remember(id, 1, result, &h)
	}
	for range 3 * windowSlots {
		next()
	}
	if n := testing.AllocsPerRun(1000, next); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
	if n := unsafe.Sizeof(slot{}); n != slotBytes {
		t.Errorf("a slot has %d bytes", n)
	}
}

func TestResultRoundTrip(t *testing.T) {
	c := newChance(1)
	d := start(t)
	for range 300 {
		txn := c.valid()
		r, ok := d.apply(EncodeTxn(nil, &txn)).(*kv.TxnResult)
		if !ok {
			continue
		}
		again, err := decodeResult(string(encodeResult(nil, r)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameResult(r, again); diff != "" {
			t.Fatal(diff)
		}
	}
	for _, bad := range []string{"", "\x07", "\x01", "\x01\x01\x01\x01\x01\x09"} {
		if _, err := decodeResult(bad); !errors.Is(err, kv.ErrCorrupt) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
}
