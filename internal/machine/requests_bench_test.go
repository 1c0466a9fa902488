package machine

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// BenchmarkRemember is what a request id adds to a put: the next one of each
// client in turn is looked for, and its result remembered.
func BenchmarkRemember(b *testing.B) {
	for _, clients := range []uint64{1, 100, 10_000} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			r, h := newRequests(), runningHash(0)
			result := &kv.TxnResult{Header: kv.Header{Revision: 1_000_000, Time: 1_000_000_000}, Succeeded: true, Ops: []kv.OpResult{{Kind: kv.OpPut}}}
			n := uint64(0)
			next := func() {
				id := kv.RequestID{Seq: 1 + n/clients}
				binary.LittleEndian.PutUint64(id.Client[:], (n%clients+1)*0x9e3779b97f4a7c15)
				if known, err := r.find(id, 1_000_000_000); known != nil || err != nil {
					b.Fatal(known, err)
				}
				r.remember(id, 1_000_000_000, result, &h)
				n++
			}
			for n < 2*64*clients {
				next()
			}
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
		})
	}
}

// BenchmarkCapture is what taking a snapshot costs who applies when there are as
// many clients as may be.
func BenchmarkCapture(b *testing.B) {
	r, h := newRequests(), runningHash(0)
	for n := range uint64(rememberedClients) {
		id := kv.RequestID{Seq: 1}
		binary.LittleEndian.PutUint64(id.Client[:], n)
		r.remember(id, 1, &kv.TxnResult{}, &h)
	}
	for b.Loop() {
		r.copy()
	}
}
