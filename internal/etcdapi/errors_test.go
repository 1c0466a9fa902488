package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
)

// TestErrors holds every error of kv to the status that etcd sends in the same
// situation.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{
		{kv.ErrUnavailable, rpctypes.ErrGRPCTimeoutDueToConnectionLost},
		{kv.ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged},
		{kv.ErrTimeout, rpctypes.ErrGRPCTimeout},
		{kv.ErrNoLeader, rpctypes.ErrGRPCNoLeader},
		{kv.ErrClosed, rpctypes.ErrGRPCStopped},
		{kv.ErrOverloaded, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrNoSpace, rpctypes.ErrGRPCNoSpace},
		{kv.ErrNoMemory, rpctypes.ErrGRPCNoSpace},
		{kv.ErrRateLimited, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrTooManyStreams, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrTooManyWatches, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrTooManyLogins, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrCorrupt, rpctypes.ErrGRPCCorrupt},
		{kv.ErrDivergent, rpctypes.ErrGRPCCorrupt},
		{kv.ErrEmptyKey, rpctypes.ErrGRPCEmptyKey},
		{kv.ErrKeyTooLarge, rpctypes.ErrGRPCRequestTooLarge},
		{kv.ErrRequestTooLarge, rpctypes.ErrGRPCRequestTooLarge},
		{kv.ErrTooManyOps, rpctypes.ErrGRPCTooManyOps},
		{kv.ErrDuplicateKey, rpctypes.ErrGRPCDuplicateKey},
		{kv.ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
		{kv.ErrValueProvided, rpctypes.ErrGRPCValueProvided},
		{kv.ErrLeaseProvided, rpctypes.ErrGRPCLeaseProvided},
		{kv.ErrInvalidSort, rpctypes.ErrGRPCInvalidSortOption},
		{kv.ErrTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
		{kv.ErrCompacted, rpctypes.ErrGRPCCompacted},
		{&kv.CompactedError{Compacted: 7}, rpctypes.ErrGRPCCompacted},
		{kv.ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
		{kv.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
		{kv.ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
		{kv.ErrTooManyClients, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrTooManyUploads, rpctypes.ErrGRPCRequestTooManyRequests},
		{kv.ErrMemberNotFound, rpctypes.ErrGRPCMemberNotFound},
		{kv.ErrMemberExists, rpctypes.ErrGRPCMemberExist},
		{kv.ErrNotLeader, rpctypes.ErrGRPCNotLeader},
		{kv.ErrNotLearner, rpctypes.ErrGRPCMemberNotLearner},
		{kv.ErrLearnerNotReady, rpctypes.ErrGRPCLearnerNotReady},
		{kv.ErrUnhealthyCluster, rpctypes.ErrGRPCUnhealthy},
		{kv.ErrUnsupported, rpctypes.ErrGRPCNotCapable},
		// etcd has no such situation:
		{kv.ErrRequestTooOld, status.Error(codes.FailedPrecondition, "etcdserver: "+kv.ErrRequestTooOld.Message)},
		{kv.ErrInvalidTTL, status.Error(codes.InvalidArgument, "etcdserver: TTL is not positive")},
		{kv.Errorf(kv.InvalidArgument, "limit"), status.Error(codes.InvalidArgument, "etcdserver: limit")},
		{errors.New("disk on fire"), status.Error(codes.Unknown, "disk on fire")},
		// A context's goes through gRPC as it is.
		{context.Canceled, status.Error(codes.Canceled, "context canceled")},
		{context.DeadlineExceeded, status.Error(codes.DeadlineExceeded, "context deadline exceeded")},
	} {
		for _, err := range []error{c.err, fmt.Errorf("while testing: %w", c.err)} {
			got, want := status.Convert(toStatus(err)), status.Convert(c.want)
			if _, ok := status.FromError(toStatus(err)); !ok {
				got = status.FromContextError(toStatus(err)) // as gRPC does
			}
			switch {
			case got.Code() != want.Code():
				t.Errorf("%v: code %v, want %v", err, got.Code(), want.Code())
			case got.Message() != want.Message() && err == c.err:
				t.Errorf("%v: message %q, want %q", err, got.Message(), want.Message())
			}
		}
	}
}

// TestErrorTableOrder checks that no row is shadowed by one before it.
func TestErrorTableOrder(t *testing.T) {
	for i, row := range errorTable {
		for _, before := range errorTable[:i] {
			if errors.Is(row.err, before.err) {
				t.Errorf("%v is never reached: %v stands before it", row.err, before.err)
			}
		}
	}
}

func TestErrorDetails(t *testing.T) {
	detail := func(err error) *errdetails.ErrorInfo {
		for _, d := range status.Convert(toStatus(err)).Details() {
			return d.(*errdetails.ErrorInfo)
		}
		return nil
	}
	if d := detail(kv.ErrEmptyKey); d != nil {
		t.Errorf("etcd's message says all, but the details say %v", d)
	}
	if d := detail(&kv.CompactedError{Compacted: 7}); d.GetMetadata()["compacted"] != "7" {
		t.Errorf("compacted: %v", d)
	}
	err := kv.Errorf(kv.InvalidArgument, "key of 9 bytes: %w", kv.ErrKeyTooLarge)
	if d := detail(err); d.GetReason() != "KEY_TOO_LARGE" || d.GetMetadata()["message"] != err.Error() {
		t.Errorf("key too large: %v", d)
	}
}

func TestCodesComplete(t *testing.T) {
	for c := kv.Internal; c <= kv.Unsupported; c++ {
		if _, ok := codeTable[c]; !ok {
			t.Errorf("no gRPC code for %v", c)
		}
	}
}

func FuzzExtensions(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendVarint(appendVarint(nil, fieldWanted, 1), fieldTTL, 1500))
	f.Add(append([]byte{0x92, 0x3f, 16}, append(make([]byte, 16), appendVarint(nil, fieldSequence, 9)...)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseExtensions(b)
		if err != nil {
			if x != (extensions{}) {
				t.Fatalf("an error and a result: %+v", x)
			}
			return
		}
		if d := x.ttl(); d < 0 {
			t.Fatalf("ttl %v of %d", d, x.n1001)
		}
		// What was understood can be written again and means the same.
		again := appendVarint(nil, fieldWanted, map[bool]uint64{true: 1}[x.wanted])
		if x.has1001 {
			again = appendVarint(again, fieldTTL, x.n1001)
		}
		again = append(again, 0x92, 0x3f, 16)
		again = append(again, x.id.Client[:]...)
		again = appendVarint(again, fieldSequence, x.id.Seq)
		if y, err := parseExtensions(again); err != nil || y != x {
			t.Fatalf("%+v, %v; want %+v", y, err, x)
		}
	})
}
