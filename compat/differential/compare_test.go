package differential

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// answer is a response or an error.
type answer struct {
	msg proto.Message
	err error
}

// String shows what is compared.
func (a answer) String() string {
	if a.err != nil {
		s := status.Convert(a.err)
		return fmt.Sprintf("error %v: %s", s.Code(), s.Message())
	}
	if a.msg == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s{%s}", a.msg.ProtoReflect().Descriptor().Name(), prototext.MarshalOptions{}.Format(a.msg))
}

// equal compares two answers that may be changed by it.
func equal(a, b answer) bool {
	if a.err != nil || b.err != nil {
		x, y := status.Convert(a.err), status.Convert(b.err)
		return x.Code() == y.Code() && x.Message() == y.Message()
	}
	if a.msg == nil || b.msg == nil {
		return a.msg == b.msg
	}
	scrubPair(a.msg, b.msg)
	return proto.Equal(a.msg, b.msg)
}

// apart is how many seconds what is left of a lease may differ, because the
// calls do not come at the same instant on a busy machine.
const apart = 10

// scrubPair makes alike what may differ.
func scrubPair(a, b proto.Message) {
	scrub(a)
	scrub(b)
	x, ok := a.(*pb.LeaseTimeToLiveResponse)
	y, same := b.(*pb.LeaseTimeToLiveResponse)
	if d := x.GetTTL() - y.GetTTL(); ok && same && d*d <= apart*apart && min(x.TTL, y.TTL) > 0 {
		x.TTL = y.TTL
	}
}

// scrub replaces what may differ, except that zero stays zero.
func scrub(m proto.Message) {
	switch m := m.(type) {
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare)
	case *pb.HashKVResponse:
		m.Hash = min(m.Hash, 1)
	case *pb.HashResponse:
		m.Hash = min(m.Hash, 1)
	case *pb.StatusResponse:
		m.DbSize, m.DbSizeInUse = min(m.DbSize, 1), min(m.DbSizeInUse, 1)
		m.RaftIndex, m.RaftAppliedIndex, m.RaftTerm = min(m.RaftIndex, 1), min(m.RaftAppliedIndex, 1), min(m.RaftTerm, 1)
		m.Leader, m.DbSizeQuota = min(m.Leader, 1), 0
		for i, text := range m.Errors { // protobuf's text has spaces at random
			m.Errors[i] = strings.Join(strings.Fields(text), " ")
		}
		slices.Sort(m.Errors)
	case *pb.AlarmResponse:
		slices.SortFunc(m.Alarms, func(a, b *pb.AlarmMember) int { return cmp.Compare(a.Alarm, b.Alarm) })
	case *pb.Member:
		m.ID = min(m.ID, 1)
	}
	scrubHeaders(m.ProtoReflect())
}

// scrubHeaders scrubs the headers in m, however deep.
func scrubHeaders(m protoreflect.Message) {
	if h, ok := m.Interface().(*pb.ResponseHeader); ok {
		h.ClusterId, h.MemberId, h.RaftTerm = min(h.ClusterId, 1), min(h.MemberId, 1), min(h.RaftTerm, 1)
		return
	}
	eachMessage(m, scrubHeaders)
}

// eachMessage visits the messages in the fields of m.
func eachMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i).Message())
			}
		default:
			visit(v.Message())
		}
		return true
	})
}
