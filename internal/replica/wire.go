package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Messages between members, version 1: a kind byte, then fields as little
// endian integers, then the rest.
//
//	raft           raftpb.Message
//	heartbeat      round u64 | lease u64 ns | raftpb.Message
//	heartbeatResp  round u64 | honours u8 | raftpb.Message
//	forward        term u64 | incarnation u64 | stream u64 | sequence u64 | count u64 | data
//	forwarded      term u64 | incarnation u64 | next u64
//	change         term u64 | incarnation u64 | id u64 | raftpb.ConfChangeV2
//	refused        term u64 | incarnation u64 | id u64 | reason u8
//	transfer       term u64 | to u64
type wireKind uint8

const (
	wireRaft wireKind = iota + 1
	wireHeartbeat
	wireHeartbeatResp
	wireForward
	wireForwarded
	wireChange
	wireRefused
	wireTransfer
)

// wireFields is how many u64 fields follow each kind.
var wireFields = [...]int{wireRaft: 0, wireHeartbeat: 2, wireHeartbeatResp: 1, wireForward: 5, wireForwarded: 3, wireChange: 3, wireRefused: 3, wireTransfer: 2}

var errWire = errors.New("replica: message has no meaning")

// wire is a message between members, taken apart.
type wire struct {
	kind wireKind
	// f are the fields in the order of the format.
	f [5]uint64
	// flag is honours or reason.
	flag uint8
	rest []byte
}

func (w *wire) append(dst []byte) []byte {
	dst = append(dst, byte(w.kind))
	for _, v := range w.f[:wireFields[w.kind]] {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	if w.kind == wireHeartbeatResp || w.kind == wireRefused {
		dst = append(dst, w.flag)
	}
	return append(dst, w.rest...)
}

func parseWire(b []byte) (w wire, err error) {
	if len(b) == 0 || int(b[0]) >= len(wireFields) || b[0] == 0 {
		return w, fmt.Errorf("%w: unknown kind", errWire)
	}
	w.kind, b = wireKind(b[0]), b[1:]
	n := wireFields[w.kind]
	flagged := w.kind == wireHeartbeatResp || w.kind == wireRefused
	if len(b) < 8*n || flagged && len(b) == 8*n {
		return w, fmt.Errorf("%w: cut short", errWire)
	}
	for i := range n {
		w.f[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	b = b[8*n:]
	if flagged {
		w.flag, b = b[0], b[1:]
	}
	if (w.kind == wireForwarded || w.kind == wireRefused || w.kind == wireTransfer) && len(b) != 0 {
		return w, fmt.Errorf("%w: bytes follow the end", errWire)
	}
	w.rest = b
	return w, nil
}

// encodeRaft appends m to what head has.
func encodeRaft(head wire, m *raftpb.Message) []byte {
	dst := make([]byte, 0, 32+proto.Size(m))
	dst = head.append(dst)
	dst, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(dst, m)
	if err != nil {
		panic(fmt.Sprintf("replica: raft made a message that cannot be encoded: %v", err))
	}
	return dst
}
