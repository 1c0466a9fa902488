package machine

import (
	"errors"
	"fmt"
	"testing"

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
	const used = rememberedBytes - 4<<20
	d.requests.bytes += used
	for seq := 1; seq <= 100; seq++ {
		d.apply(request(3+seq/64, 1+seq%64, 60<<10))
		if d.requests.bytes > rememberedBytes {
			t.Fatalf("%d bytes are remembered", d.requests.bytes)
		}
	}
	if d.requests.bytes < rememberedBytes-128<<10 {
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
	for d.requests.results.Len() > 0 {
		d.put("x", "")
	}
	d.checkRequests()
}

// checkRequests asserts that the indexes belong to what is remembered.
func (d *driver) checkRequests() {
	d.Helper()
	again := d.requests.copy()
	again.oldest, again.idle = newRequests().oldest, newRequests().idle
	if !again.index() || again.bytes != d.requests.bytes || again.oldest.Len() != d.requests.oldest.Len() || again.idle.Len() != d.requests.idle.Len() {
		d.Fatalf("results: %d bytes, %d by age, %d idle; want %d, %d, %d", d.requests.bytes, d.requests.oldest.Len(), d.requests.idle.Len(), again.bytes, again.oldest.Len(), again.idle.Len())
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
	for d.requests.results.Len() > 0 {
		d.put("x", "")
	}
	if d.requests.clients.Len() != rememberedClients {
		t.Fatal("clients are forgotten before room is needed")
	}
	wantError(t, d.apply(request(8, 1, 0)), kv.ErrRequestTooOld)
	for c := range 3 {
		if _, ok := d.apply(request(rememberedClients+c, 1, 0)).(*kv.TxnResult); !ok {
			t.Fatal("there was room for no more")
		}
	}
	if d.requests.clients.Len() != rememberedClients {
		t.Fatalf("%d clients", d.requests.clients.Len())
	}
	d.checkRequests()
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
