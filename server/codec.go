package server

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that bounded stands before
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Messages are decoded before anybody knows who sends them, and an empty
// operation of two bytes makes an object of more than a hundred. So large ones
// are looked through first.
const (
	// smallMessage is the size up to which messages are decoded as they are:
	// what they make takes at most about 2 MiB.
	smallMessage = 16 << 10
	// listMessage bounds messages other than writes, of which a watch's list of
	// filters becomes ten times as large. It is what etcd takes of any message
	// where nothing is set.
	listMessage = 2 << 20
	// nestedOps is how many comparisons and operations a transaction may have in
	// all, nested ones included, beside three times the limit of one list.
	nestedOps = 100_000
)

// bounded decodes what does not become much larger than it came.
type bounded struct {
	encoding.CodecV2
	ops int // kv.Limits.Ops
}

func newBounded(ops int) bounded { return bounded{encoding.GetCodecV2("proto"), ops} }

var errListMessage = errors.New("the message is too large for a request that writes nothing")

// Unmarshal implements [encoding.CodecV2].
func (c bounded) Unmarshal(data mem.BufferSlice, v any) error {
	if size := data.Len(); size > smallMessage {
		switch r := v.(type) {
		case *pb.TxnRequest:
			flat := data.MaterializeToBuffer(mem.DefaultBufferPool())
			defer flat.Free()
			if most := mostElements(c.ops); elements(flat.ReadOnlyData(), most, 0) > most {
				// One more than may be, for the check that tells the client so.
				r.Success = make([]*pb.RequestOp, c.ops+1)
				return nil
			}
			return c.CodecV2.Unmarshal(mem.BufferSlice{flat}, v)
		case *pb.WatchRequest:
			if size > listMessage {
				return fmt.Errorf("%d bytes: %w", size, errListMessage)
			}
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// mostElements is how many comparisons and operations a transaction may have in
// all where ops are the most of one list.
func mostElements(ops int) int { return 3*ops + nestedOps }

// Fields of etcdserverpb.TxnRequest and RequestOp.
const (
	fieldCompare, fieldSuccess, fieldFailure protowire.Number = 1, 2, 3
	fieldNested                              protowire.Number = 4
	// maxDepth is how deep a message may be that is decoded at all.
	maxDepth = protowire.DefaultRecursionLimit
)

// elements counts the comparisons and operations in an encoded transaction, up
// to one more than most. Of bytes that are no
// message it counts those before the fault, which decoding finds again.
func elements(txn []byte, most, depth int) (n int) {
	if depth > maxDepth {
		return 0 // decoding refuses it
	}
	for len(txn) > 0 && n <= most {
		var num protowire.Number
		var op []byte
		if num, op, txn = field(txn); op == nil || num < fieldCompare || num > fieldFailure {
			continue
		}
		n++
		for num != fieldCompare && len(op) > 0 && n <= most {
			var kind protowire.Number
			var inner []byte
			if kind, inner, op = field(op); kind == fieldNested {
				n += elements(inner, most-n, depth+1)
			}
		}
	}
	return n
}

// field reads one field of a message. value is not nil when it has a length, rest
// nil when there is no field.
func field(b []byte) (num protowire.Number, value, rest []byte) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, nil, nil
	}
	if b = b[n:]; typ == protowire.BytesType {
		if value, n = protowire.ConsumeBytes(b); n < 0 {
			return 0, nil, nil
		}
		return num, value, b[n:]
	}
	if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
		return 0, nil, nil
	}
	return num, nil, b[n:]
}
