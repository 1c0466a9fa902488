package etcdapi

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/kv"
)

// The numbers of Concord's fields; api/extensions.md says which message has
// which. Package client has the same.
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

// extensions are the fields of Concord in one request.
type extensions struct {
	// wanted: the client understands Concord's fields in the answer.
	wanted bool
	// n1001 is the number in field 1001, which means a TTL in milliseconds or
	// a read level; has1001 tells that it was there.
	n1001   uint64
	has1001 bool
	id      kv.RequestID
}

// ttl is field 1001 as a duration, as far as one holds it.
func (x extensions) ttl() time.Duration {
	if x.n1001 > uint64(kv.MaxTTL/time.Millisecond) {
		return kv.MaxTTL + time.Millisecond // refused as too large further down
	}
	return time.Duration(x.n1001) * time.Millisecond
}

// extensionsOf reads Concord's fields of m.
func extensionsOf(m protoreflect.ProtoMessage) (extensions, error) {
	b := m.ProtoReflect().GetUnknown()
	if len(b) == 0 {
		return extensions{}, nil
	}
	return parseExtensions(b)
}

// parseExtensions reads the fields that b holds; those it does not know are
// skipped, as protobuf does. What is malformed is refused.
func parseExtensions(b []byte) (x extensions, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return extensions{}, errExtension
		}
		b = b[n:]
		switch {
		case typ == protowire.VarintType && (num == fieldWanted || num == fieldTTL || num == fieldSequence):
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n < 0 {
				return extensions{}, errExtension
			}
			x.set(num, v)
		case typ == protowire.BytesType && num == fieldClientID:
			var id []byte
			if id, n = protowire.ConsumeBytes(b); n < 0 || len(id) != len(x.id.Client) {
				return extensions{}, errExtension
			}
			copy(x.id.Client[:], id)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return extensions{}, errExtension
			}
		}
		b = b[n:]
	}
	return x, nil
}

func (x *extensions) set(num protowire.Number, v uint64) {
	switch num {
	case fieldWanted:
		x.wanted = v != 0
	case fieldTTL:
		x.n1001, x.has1001 = v, true
	case fieldSequence:
		x.id.Seq = v
	}
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func setUnknown(m protoreflect.ProtoMessage, b []byte) { m.ProtoReflect().SetUnknown(b) }
