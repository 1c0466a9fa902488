package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// tree is a random transaction, and how many comparisons and operations it has.
func tree(r *rand.Rand, depth int) (t *pb.TxnRequest, count int) {
	t = new(pb.TxnRequest)
	for range r.IntN(4) {
		t.Compare = append(t.Compare, &pb.Compare{Key: []byte("k"), TargetUnion: &pb.Compare_Version{Version: 7}})
	}
	count = len(t.Compare)
	for _, branch := range []*[]*pb.RequestOp{&t.Success, &t.Failure} {
		for range r.IntN(4) {
			op := new(pb.RequestOp)
			switch count++; r.IntN(4) {
			case 0:
				op.Request = &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Limit: 300}}
			case 1:
				op.Request = &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("\x12\x00\x12\x00")}}
			case 2:
				if depth > 0 {
					nested, n := tree(r, depth-1)
					op.Request = &pb.RequestOp_RequestTxn{RequestTxn: nested}
					count += n
				}
			}
			*branch = append(*branch, op)
		}
	}
	return t, count
}

// TestElements counts as decoding does, and gives up one beyond the limit.
func TestElements(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	most := 0
	for range 2000 {
		txn, want := tree(r, 5)
		most = max(most, want)
		data, err := proto.Marshal(txn)
		if err != nil {
			t.Fatal(err)
		}
		if got := elements(data, want, 0); got != want {
			t.Fatalf("counted %d, not %d, in %v", got, want, txn)
		}
		if want > 0 {
			if got := elements(data, want-1, 0); got != want {
				t.Fatalf("gave up at %d, not at %d, in %v", got, want, txn)
			}
		}
		for range 10 {
			elements(data[:r.IntN(len(data)+1)], want, 0) // it ends, without a panic
		}
	}
	if most < 30 {
		t.Errorf("no transaction has more than %d elements", most)
	}
}

// TestDeepMessages does not follow what decoding would refuse.
func TestDeepMessages(t *testing.T) {
	var deep []byte
	for range 3 * maxDepth {
		inner := append([]byte{0x22}, varint(len(deep))...)
		inner = append(inner, deep...)
		if len(inner) > 1<<16 { // enough to see that it ends
			break
		}
		deep = append(append([]byte{0x12}, varint(len(inner))...), inner...)
	}
	if n := elements(deep, 1<<30, 0); n < 5000 || n > maxDepth {
		t.Errorf("counted %d", n)
	}
	if n := elements(deep, 1<<30, maxDepth+1); n != 0 {
		t.Errorf("counted %d beyond the depth", n)
	}
}

func varint(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// TestSmallMessagesDoNotGrow: a message of a few bytes an operation is refused
// before it is made into objects, with etcd's words.
func TestSmallMessagesDoNotGrow(t *testing.T) {
	c := newBounded(10_000)
	for name, piece := range map[string]string{
		"operations": "\x12\x00", "other operations": "\x1a\x00", "comparisons": "\x0a\x00", "empty transactions": "\x12\x02\x22\x00", "transactions": "\x12\x06\x22\x04\x12\x00\x0a\x00",
	} {
		data := bytes.Repeat([]byte(piece), 4<<20/len(piece))
		r := new(pb.TxnRequest)
		before := allocated()
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if cost := allocated() - before; cost > 4<<20 {
			t.Errorf("%s: %d bytes became %d", name, len(data), cost)
		}
		if len(r.Success) != 10_001 || len(r.Compare)+len(r.Failure) > 0 {
			t.Errorf("%s: %d operations, %d comparisons", name, len(r.Success), len(r.Compare))
		}
	}
	filters := append([]byte{0x0a}, varint(listMessage+4)...)
	filters = append(append(filters, 0x2a), varint(listMessage)...)
	filters = append(filters, make([]byte, listMessage)...)
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(filters)}, new(pb.WatchRequest)); err == nil {
		t.Error("a watch with two million filters was taken")
	}
}

// TestLargeTransactions: what is within the limits is decoded as before, from one
// piece or many.
func TestLargeTransactions(t *testing.T) {
	c := newBounded(10_000)
	want := new(pb.TxnRequest)
	for i := range 10_000 {
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "key %d", i), Value: []byte("v")}}}
		if i%2 == 0 {
			nested := &pb.TxnRequest{Success: []*pb.RequestOp{put}, Compare: []*pb.Compare{{Key: []byte("k")}}}
			put = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested}}
		}
		want.Success = append(want.Success, put)
	}
	data, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range []int{len(data), 1000, 7} {
		var pieces mem.BufferSlice
		for rest := data; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			pieces = append(pieces, mem.SliceBuffer(rest[:min(piece, len(rest))]))
		}
		got := new(pb.TxnRequest)
		if err := c.Unmarshal(pieces, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("in pieces of %d: %v, %d operations", piece, err, len(got.Success))
		}
	}
}

// TestObjectsInJSON bounds what the gateway makes of a body.
func TestObjectsInJSON(t *testing.T) {
	m := newShapes(128<<20, 1000)
	for name, body := range map[string]string{
		"operations": `{"success":[{}` + strings.Repeat(",{}", 2<<20) + `]}`,
		"numbers":    `{"filters":[0` + strings.Repeat(",0", 4<<20) + `]}`,
	} {
		before := allocated()
		err := m.NewDecoder(strings.NewReader(body)).Decode(new(pb.TxnRequest))
		if err == nil || !strings.Contains(err.Error(), errMarks.Error()) {
			t.Errorf("%s: %v", name, err)
		}
		if cost := allocated() - before; cost > 8*uint64(len(body)) {
			t.Errorf("%s: %d bytes cost %d", name, len(body), cost)
		}
	}
	op := `{"request_put":{"key":"aw==","value":"dg==","lease":"1","prev_kv":true,"ignore_value":false,"ignore_lease":false}}`
	got := new(pb.TxnRequest)
	body := `{"success":[` + op + strings.Repeat(","+op, 999) + `]}`
	if err := m.NewDecoder(strings.NewReader(body)).Decode(got); err != nil || len(got.Success) != 1000 {
		t.Errorf("a good transaction: %v, %d operations", err, len(got.Success))
	}
}
