package machine

import (
	"bytes"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// TestTraceChangesNothing gives two machines the same commands, of which one's
// are traced: results, state and hash are the same.
func TestTraceChangesNothing(t *testing.T) {
	trace := bytes.Repeat([]byte{0xfe}, MaxTrace)
	plain, traced := New(Options{}), New(Options{})
	defer plain.Close()
	defer traced.Close()
	for _, m := range []*Machine{plain, traced} {
		m.Bootstrap(1, []kv.Member{{ID: 1}})
	}
	put := kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("k"), Value: []byte("v")}}}
	once := put
	once.ID = kv.RequestID{Client: [16]byte{7}, Seq: 1}
	upload := UploadID{3}
	large := kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("large"), Value: bytes.Repeat([]byte("x"), 40)}}}
	who := &kv.Caller{User: "somebody", AuthRevision: 1}
	for i, encode := range []func() []byte{
		func() []byte { return EncodeTxn(nil, &put) },
		func() []byte { return AppendCaller(EncodeTxn(nil, &put), 0, who) },
		func() []byte { return EncodeTxn(nil, &once) },
		func() []byte { return EncodeTxn(nil, &once) }, // again
		func() []byte {
			return EncodePiece(nil, Piece{Upload: upload, Offset: 0, Total: 40}, large.Success[0].Value)
		},
		func() []byte { return EncodeUploadTxn(nil, &large, upload, 32) },
		func() []byte { return EncodeGrant(nil, 9, time.Minute) },
		func() []byte { return EncodeRevoke(nil, 77) }, // refused
		func() []byte { return EncodeCompact(nil, 2) },
	} {
		cmd := AppendTrace(encode(), trace)
		if !bytes.Equal(TraceOf(cmd), trace) || TraceOf(encode()) != nil {
			t.Fatalf("command %d is part of %x", i, TraceOf(cmd))
		}
		at := Position{uint64(i) + 2, 1, int64(i) + 1}
		a, b := make([]any, 1), make([]any, 1)
		plain.Apply(at, [][]byte{encode()}, a)
		traced.Apply(at, [][]byte{cmd}, b)
		if diff := sameResult(a[0], b[0]); diff != "" {
			t.Errorf("command %d: %s", i, diff)
		}
		_, want := plain.Hash()
		if _, got := traced.Hash(); got != want {
			t.Errorf("command %d leaves another hash", i)
		}
		w, ok := WorkOf(encode())
		if x, alike := WorkOf(cmd); alike != ok || x.TTL != w.TTL || x.Compact != w.Compact || len(x.Revoked) != len(w.Revoked) {
			t.Errorf("command %d: %+v, traced %+v", i, w, x)
		}
		if !bytes.Equal(plainKey(cmd), plainKey(encode())) {
			t.Errorf("command %d: another key to be looked up", i)
		}
	}
	var a, b bytes.Buffer
	for m, to := range map[*Machine]*bytes.Buffer{plain: &a, traced: &b} {
		write, release := m.Snapshot()
		if err := write(to); err != nil {
			t.Fatal(err)
		}
		release()
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the states differ")
	}
}

// TestTraceBounds: what is no trace is not put there, and a trailer that is
// damaged stops the member, as all that is damaged does.
func TestTraceBounds(t *testing.T) {
	cmd := EncodeGrant(nil, 9, time.Minute)
	for _, trace := range [][]byte{nil, make([]byte, MaxTrace+1)} {
		if got := AppendTrace(bytes.Clone(cmd), trace); !bytes.Equal(got, cmd) {
			t.Errorf("a trace of %d bytes is in %x", len(trace), got)
		}
	}
	for _, end := range []byte{0, MaxTrace + 1, 250} {
		bad := append(AppendTrace(bytes.Clone(cmd), []byte("t")), end)
		if TraceOf(bad) != nil {
			t.Errorf("a trailer that says %d is read", end)
		}
		m := New(Options{})
		m.Bootstrap(1, []kv.Member{{ID: 1}})
		r := recovered(func() { m.Apply(Position{2, 1, 1}, [][]byte{bad}, make([]any, 1)) })
		if _, ok := r.(*CommandError); !ok {
			t.Errorf("a trailer that says %d: %v", end, r)
		}
		m.Close()
	}
}
