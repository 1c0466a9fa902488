package differential

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/compat/servers"
)

// situation is a request that both refuse, and the error that clients match.
// Where none is given both answer.
type situation struct {
	name string
	want error
	do   call
}

// ask makes a situation of a request.
func ask(name string, want error, req proto.Message) situation {
	return situation{name, want, callOf(req)}
}

func putOps(keys ...string) (ops []*pb.RequestOp) {
	for _, k := range keys {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k)}}})
	}
	return ops
}

func nest(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
	}}
}

// numbered are n different keys.
func numbered(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint("n", i))
	}
	return keys
}

// prepared is what the situations stand on: revision 4, compacted at 3, and the
// lease 77.
var prepared = []proto.Message{
	&pb.PutRequest{Key: []byte("a"), Value: []byte("1")}, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")},
	&pb.PutRequest{Key: []byte("b"), Value: []byte("3")}, &pb.CompactionRequest{Revision: 3},
	&pb.LeaseGrantRequest{ID: 77, TTL: 100_000},
}

func kvSituations() []situation {
	a, large := []byte("a"), make([]byte, servers.MaxRequestBytes+1000)
	return []situation{
		ask("range without key", rpctypes.ErrGRPCEmptyKey, &pb.RangeRequest{}),
		ask("unknown sort order", rpctypes.ErrGRPCInvalidSortOption, &pb.RangeRequest{Key: a, SortOrder: 3}),
		ask("unknown sort target", rpctypes.ErrGRPCInvalidSortOption, &pb.RangeRequest{Key: a, SortTarget: -1}),
		ask("range of a compacted revision", rpctypes.ErrGRPCCompacted, &pb.RangeRequest{Key: a, Revision: 2}),
		ask("range of a future revision", rpctypes.ErrGRPCFutureRev, &pb.RangeRequest{Key: a, Revision: 5}),
		ask("serializable range of a future revision", rpctypes.ErrGRPCFutureRev, &pb.RangeRequest{Key: a, Revision: 5, Serializable: true}),
		ask("put without key", rpctypes.ErrGRPCEmptyKey, &pb.PutRequest{}),
		ask("value that is ignored", rpctypes.ErrGRPCValueProvided, &pb.PutRequest{Key: a, Value: a, IgnoreValue: true}),
		ask("lease that is ignored", rpctypes.ErrGRPCLeaseProvided, &pb.PutRequest{Key: a, Lease: 77, IgnoreLease: true}),
		ask("ignored value of no key", rpctypes.ErrGRPCKeyNotFound, &pb.PutRequest{Key: []byte("z"), IgnoreValue: true}),
		ask("ignored lease of no key", rpctypes.ErrGRPCKeyNotFound, &pb.PutRequest{Key: []byte("z"), IgnoreLease: true}),
		ask("put with unknown lease", rpctypes.ErrGRPCLeaseNotFound, &pb.PutRequest{Key: a, Lease: 5}),
		ask("large put", rpctypes.ErrGRPCRequestTooLarge, &pb.PutRequest{Key: a, Value: large}),
		ask("large delete", rpctypes.ErrGRPCRequestTooLarge, &pb.DeleteRangeRequest{Key: large}),
		ask("large transaction", rpctypes.ErrGRPCRequestTooLarge, &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: a, Value: large}}},
		}}),
		ask("delete without key", rpctypes.ErrGRPCEmptyKey, &pb.DeleteRangeRequest{}),
		ask("compaction of a compacted revision", rpctypes.ErrGRPCCompacted, &pb.CompactionRequest{Revision: 3}),
		ask("compaction of revision 0", rpctypes.ErrGRPCCompacted, &pb.CompactionRequest{}),
		ask("compaction of a negative revision", rpctypes.ErrGRPCCompacted, &pb.CompactionRequest{Revision: -4}),
		ask("compaction of a future revision", rpctypes.ErrGRPCFutureRev, &pb.CompactionRequest{Revision: 5}),
		{"message over the limit of gRPC", nil, callOf(&pb.PutRequest{Key: a, Value: make([]byte, 3<<20)})},
	}
}

func txnSituations() []situation {
	a := []byte("a")
	compares := make([]*pb.Compare, servers.MaxTxnOps+1)
	for i := range compares {
		compares[i] = &pb.Compare{Key: a}
	}
	txn := func(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }
	return []situation{
		ask("many operations", rpctypes.ErrGRPCTooManyOps, txn(putOps(numbered(servers.MaxTxnOps+1)...)...)),
		ask("many operations in the other branch", rpctypes.ErrGRPCTooManyOps, &pb.TxnRequest{Failure: putOps(numbered(servers.MaxTxnOps + 1)...)}),
		ask("many comparisons", rpctypes.ErrGRPCTooManyOps, &pb.TxnRequest{Compare: compares}),
		ask("many operations, nested", rpctypes.ErrGRPCTooManyOps, txn(append(putOps(numbered(100)...), nest(txn(putOps(numbered(28)...)...)))...)),
		ask("the most operations", nil, txn(putOps(numbered(servers.MaxTxnOps)...)...)),
		ask("comparison without key", rpctypes.ErrGRPCEmptyKey, &pb.TxnRequest{Compare: []*pb.Compare{{}}}),
		ask("empty operation", rpctypes.ErrGRPCKeyNotFound, txn(&pb.RequestOp{})),
		ask("key put twice", rpctypes.ErrGRPCDuplicateKey, txn(putOps("a", "a")...)),
		ask("key put and deleted", rpctypes.ErrGRPCDuplicateKey, txn(putOps("b")[0], deleteOp("a", "c"))),
		ask("key put twice, nested", rpctypes.ErrGRPCDuplicateKey, txn(putOps("b")[0], nest(&pb.TxnRequest{Failure: putOps("b")}))),
		ask("key put in both branches", nil, txn(nest(&pb.TxnRequest{Success: putOps("b"), Failure: putOps("b")}))),
		ask("range of a compacted revision", rpctypes.ErrGRPCCompacted, txn(putOps("b")[0], rangeOp(&pb.RangeRequest{Key: a, Revision: 1}))),
		ask("range of a future revision", rpctypes.ErrGRPCFutureRev, txn(rangeOp(&pb.RangeRequest{Key: a, Revision: 1 << 40}))),
		ask("unknown lease", rpctypes.ErrGRPCLeaseNotFound, txn(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: a, Lease: 5}}})),
		ask("ignored value of no key", rpctypes.ErrGRPCKeyNotFound, txn(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z"), IgnoreValue: true}}})),
		ask("unknown sort", rpctypes.ErrGRPCInvalidSortOption, txn(rangeOp(&pb.RangeRequest{Key: a, SortTarget: 9}))),
		{"stream with a custom sort", nil, rangeStream(&pb.RangeRequest{Key: a, SortOrder: pb.RangeRequest_DESCEND})},
		{"stream with a filter", nil, rangeStream(&pb.RangeRequest{Key: a, MinModRevision: 1})},
		{"stream of a compacted revision", rpctypes.ErrGRPCCompacted, rangeStream(&pb.RangeRequest{Key: a, Revision: 2})},
	}
}

// of makes a situation of a call of a generated client.
func of[Q any, R proto.Message, C any](name string, want error, client func(grpc.ClientConnInterface) C,
	do func(C, context.Context, Q, ...grpc.CallOption) (R, error), req Q) situation {
	return situation{name, want, func(ctx context.Context, c *grpc.ClientConn) answer {
		resp, err := do(client(c), ctx, req)
		return answer{resp, err}
	}}
}

func leaseSituations() []situation {
	return []situation{
		ask("grant of an id that is taken", rpctypes.ErrGRPCLeaseExist, &pb.LeaseGrantRequest{ID: 77, TTL: 10}),
		ask("grant for too long", rpctypes.ErrGRPCLeaseTTLTooLarge, &pb.LeaseGrantRequest{ID: 78, TTL: 9_000_000_001}),
		ask("grant for the longest time", nil, &pb.LeaseGrantRequest{ID: 79, TTL: 9_000_000_000}),
		ask("grant for a short time", nil, &pb.LeaseGrantRequest{ID: 80, TTL: -3}),
		ask("revocation of an unknown lease", rpctypes.ErrGRPCLeaseNotFound, &pb.LeaseRevokeRequest{ID: 5}),
		ask("revocation of lease 0", rpctypes.ErrGRPCLeaseNotFound, &pb.LeaseRevokeRequest{}),
		ask("renewal of an unknown lease", nil, &pb.LeaseKeepAliveRequest{ID: 5}),
		ask("time of an unknown lease", nil, &pb.LeaseTimeToLiveRequest{ID: 5, Keys: true}),
	}
}

func clusterSituations() []situation {
	cluster, maintenance := pb.NewClusterClient, pb.NewMaintenanceClient
	add := func(name string, want error, urls ...string) situation {
		return of(name, want, cluster, pb.ClusterClient.MemberAdd, &pb.MemberAddRequest{PeerURLs: urls})
	}
	return []situation{
		add("member without address", rpctypes.ErrGRPCMemberBadURLs),
		add("member with a bad address", rpctypes.ErrGRPCMemberBadURLs, "localhost:2380"),
		add("member with a path", rpctypes.ErrGRPCMemberBadURLs, "http://localhost:2380/x"),
		of("removal of an unknown member", rpctypes.ErrGRPCMemberNotFound, cluster, pb.ClusterClient.MemberRemove, &pb.MemberRemoveRequest{ID: 5}),
		of("update of an unknown member", rpctypes.ErrGRPCMemberNotFound, cluster, pb.ClusterClient.MemberUpdate, &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://localhost:1"}}),
		of("update of an unknown member to no address", rpctypes.ErrGRPCMemberNotFound, cluster, pb.ClusterClient.MemberUpdate, &pb.MemberUpdateRequest{ID: 5}),
		of("promotion of an unknown member", rpctypes.ErrGRPCMemberNotFound, cluster, pb.ClusterClient.MemberPromote, &pb.MemberPromoteRequest{ID: 5}),
		of("leadership to nobody", rpctypes.ErrGRPCBadLeaderTransferee, maintenance, pb.MaintenanceClient.MoveLeader, &pb.MoveLeaderRequest{TargetID: 5}),
		of("alarms", nil, maintenance, pb.MaintenanceClient.Alarm, &pb.AlarmRequest{}),
		of("disarming nothing", nil, maintenance, pb.MaintenanceClient.Alarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}),
		of("defragmentation", nil, maintenance, pb.MaintenanceClient.Defragment, &pb.DefragmentRequest{}),
		of("status", nil, maintenance, pb.MaintenanceClient.Status, &pb.StatusRequest{}),
		of("hash of a revision", nil, maintenance, pb.MaintenanceClient.HashKV, &pb.HashKVRequest{Revision: 4}),
		of("hash of a future revision", rpctypes.ErrGRPCFutureRev, maintenance, pb.MaintenanceClient.HashKV, &pb.HashKVRequest{Revision: 1 << 40}),
		of("hash of a compacted revision", rpctypes.ErrGRPCCompacted, maintenance, pb.MaintenanceClient.HashKV, &pb.HashKVRequest{Revision: 2}),
		of("status of authentication", nil, pb.NewAuthClient, pb.AuthClient.AuthStatus, &pb.AuthStatusRequest{}),
		of("authentication", rpctypes.ErrGRPCAuthNotEnabled, pb.NewAuthClient, pb.AuthClient.Authenticate, &pb.AuthenticateRequest{Name: "root", Password: "x"}),
		of("authentication switched off", nil, pb.NewAuthClient, pb.AuthClient.AuthDisable, &pb.AuthDisableRequest{}),
	}
}

// TestErrors makes every error of a service that does not need a failure, one
// after another, and some answers at the edge of one.
func TestErrors(t *testing.T) {
	p := newPair(t, 1)
	hash := of("hash of a new store", nil, pb.NewMaintenanceClient, pb.MaintenanceClient.HashKV, &pb.HashKVRequest{})
	if a, b := p.both(hash.do); a.err != nil || !equal(a, b) {
		t.Errorf("%s\n   etcd: %v\nconcord: %v", hash.name, a, b)
	}
	for _, req := range prepared {
		if a, b := p.both(callOf(req)); a.err != nil || !equal(a, b) {
			t.Fatalf("%v\n   etcd: %v\nconcord: %v", req, a, b)
		}
	}
	for _, group := range []struct {
		name       string
		situations []situation
	}{{"KV", kvSituations()}, {"Txn", txnSituations()}, {"Lease", leaseSituations()}, {"Cluster", clusterSituations()}} {
		for _, s := range group.situations {
			t.Run(group.name+" "+s.name, func(t *testing.T) {
				etcd, concord := p.both(s.do)
				if s.want != nil && !equal(answer{err: etcd.err}, answer{err: s.want}) {
					t.Errorf("etcd: %v, expected %v", etcd, s.want)
				}
				if !equal(etcd, concord) {
					t.Errorf("\n   etcd: %.1000v\nconcord: %.1000v", etcd, concord)
				}
			})
		}
	}
}

// TestNotLeader asks followers for what only a leader does.
func TestNotLeader(t *testing.T) {
	for _, name := range []string{"etcd", "concord"} {
		c := servers.Start(t, name, 3)
		refused := 0
		for _, conn := range c.Conns {
			ctx := metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
			_, err := pb.NewMaintenanceClient(conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 5})
			if err != nil && strings.Contains(err.Error(), rpctypes.ErrGRPCNotLeader.Error()) {
				refused++
			}
		}
		if refused != 2 {
			t.Errorf("%s: %d members say that they do not lead", name, refused)
		}
	}
}
