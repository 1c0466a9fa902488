package client

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/kv"
)

// The numbers of Concord's fields; api/extensions.md says which message has
// which. Package etcdapi has the same.
const (
	fieldWanted   protowire.Number = 1000
	fieldClientID protowire.Number = 1010
	fieldSequence protowire.Number = 1011

	fieldHeaderTime protowire.Number = 1001
	fieldExpires    protowire.Number = 1001
	fieldTTL        protowire.Number = 1001
	fieldLeft       protowire.Number = 1002
	fieldLevel      protowire.Number = 1001

	// fieldStatus, a google.rpc.Status, is why a watch was cancelled.
	fieldStatus protowire.Number = 1001

	fieldStatusVersion protowire.Number = 1001
	fieldStatusRole    protowire.Number = 1002
	fieldStatusCompact protowire.Number = 1003
	fieldStatusHash    protowire.Number = 1004
	fieldStatusKeys    protowire.Number = 1005
)

// wanted says that the client understands Concord's fields in the answer.
func wanted() []byte { return appendVarint(make([]byte, 0, 48), fieldWanted, 1) }

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendID(b []byte, id kv.RequestID) []byte {
	if id.IsZero() {
		return b
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldClientID, protowire.BytesType), id.Client[:])
	return appendVarint(b, fieldSequence, id.Seq)
}

func setUnknown(m protoreflect.ProtoMessage, b []byte) { m.ProtoReflect().SetUnknown(b) }

// field finds the last number that m carries in field num, among those unknown
// to etcd's messages. What is malformed counts as absent: gRPC's decoder has
// let only well-formed fields pass.
func field(m protoreflect.ProtoMessage, num protowire.Number) (v uint64, ok bool) {
	b := m.ProtoReflect().GetUnknown()
	for len(b) > 0 {
		found, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return 0, false
		}
		if found == num && typ == protowire.VarintType {
			_, _, skip := protowire.ConsumeTag(b)
			v, _ = protowire.ConsumeVarint(b[skip:])
			ok = true
		}
		b = b[n:]
	}
	return v, ok
}

// content finds the bytes in field num, as field does a number; nil when there
// are none.
func content(m protoreflect.ProtoMessage, num protowire.Number) (v []byte) {
	b := m.ProtoReflect().GetUnknown()
	for len(b) > 0 {
		found, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return nil
		}
		if found == num && typ == protowire.BytesType {
			_, _, skip := protowire.ConsumeTag(b)
			v, _ = protowire.ConsumeBytes(b[skip:])
		}
		b = b[n:]
	}
	return v
}
