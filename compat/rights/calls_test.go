package rights

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
)

// call is a request that can be made again and again by whoever may make it: it
// leaves nothing that another one would be answered otherwise for.
type call struct {
	method string
	what   string // where there are several of a method
	req    proto.Message
	// ours says that etcd does not have the method: everybody may call it.
	ours bool
	// leader says that only who leads answers, so that who may call it may
	// get another answer.
	leader bool
}

// What root has made: see world.prepare.
const (
	inside   = "in/key"
	outside  = "out/key"
	lease    = 7001 // of keys inside and outside
	sessions = 7002 // of locks and elections
	unknown  = 77
)

func key(s string) []byte { return []byte(s) }

func put(k string) *pb.PutRequest { return &pb.PutRequest{Key: key(k), Value: key("x")} }

func ofKV() (all []call) {
	const kv = "/etcdserverpb.KV/"
	for _, where := range []struct{ name, key, end string }{{"inside", inside, ""}, {"outside", outside, ""}, {"all inside", "in/", "in0"}, {"everything", "\x00", "\x00"}} {
		r := &pb.RangeRequest{Key: key(where.key), RangeEnd: key(where.end)}
		old := proto.Clone(r).(*pb.RangeRequest)
		old.Serializable = true
		read := &pb.TxnRequest{Compare: []*pb.Compare{{Key: r.Key, RangeEnd: r.RangeEnd}}, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: r}}}}
		w := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: r.Key, RangeEnd: r.RangeEnd}}}
		all = append(all,
			call{method: kv + "Range", what: where.name, req: r}, call{method: kv + "Range", what: where.name + " serializable", req: old},
			call{method: kv + "RangeStream", what: where.name, req: r}, call{method: kv + "Txn", what: where.name + " read", req: read},
			call{method: "/etcdserverpb.Watch/Watch", what: where.name, req: w})
	}
	for _, k := range []string{"in/new", "out/new"} {
		previous, leased := put(k), put(k)
		previous.PrevKv, leased.Lease = true, lease
		write := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put(k)}}}}
		hidden := &pb.TxnRequest{Failure: write.Success}
		nested := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: hidden}}}}
		gone := &pb.DeleteRangeRequest{Key: key(k + "/gone")}
		goneWith := &pb.DeleteRangeRequest{Key: key(k + "/gone"), PrevKv: true}
		all = append(all,
			call{method: kv + "Put", what: k, req: put(k)}, call{method: kv + "Put", what: k + " with the one before", req: previous},
			call{method: kv + "Put", what: k + " with a lease", req: leased},
			call{method: kv + "Txn", what: k + " write", req: write}, call{method: kv + "Txn", what: k + " in the other branch", req: hidden},
			call{method: kv + "Txn", what: k + " nested", req: nested},
			call{method: kv + "DeleteRange", what: k, req: gone}, call{method: kv + "DeleteRange", what: k + " with the one before", req: goneWith})
	}
	return append(all, call{method: kv + "Compact", req: &pb.CompactionRequest{Revision: 1 << 40}})
}

func ofLeases() []call {
	const leases = "/etcdserverpb.Lease/"
	return []call{
		{method: leases + "LeaseGrant", req: &pb.LeaseGrantRequest{TTL: 600, ID: sessions}},
		{method: leases + "LeaseRevoke", what: "unknown", req: &pb.LeaseRevokeRequest{ID: unknown}},
		{method: leases + "LeaseKeepAlive", req: &pb.LeaseKeepAliveRequest{ID: lease}},
		{method: leases + "LeaseTimeToLive", req: &pb.LeaseTimeToLiveRequest{ID: lease}},
		{method: leases + "LeaseTimeToLive", what: "with keys", req: &pb.LeaseTimeToLiveRequest{ID: lease, Keys: true}},
		{method: leases + "LeaseTimeToLive", what: "unknown", req: &pb.LeaseTimeToLiveRequest{ID: unknown, Keys: true}},
		{method: leases + "LeaseLeases", req: &pb.LeaseLeasesRequest{}},
	}
}

func ofCluster() []call {
	const cluster, maintenance = "/etcdserverpb.Cluster/", "/etcdserverpb.Maintenance/"
	return []call{
		{method: cluster + "MemberRemove", req: &pb.MemberRemoveRequest{ID: unknown}},
		{method: cluster + "MemberUpdate", req: &pb.MemberUpdateRequest{ID: unknown, PeerURLs: []string{"http://127.0.0.1:1"}}},
		{method: cluster + "MemberPromote", req: &pb.MemberPromoteRequest{ID: unknown}},
		{method: cluster + "MemberList", req: &pb.MemberListRequest{}},
		{method: cluster + "MemberList", what: "linearizable", req: &pb.MemberListRequest{Linearizable: true}},
		{method: maintenance + "Alarm", req: &pb.AlarmRequest{}},
		{method: maintenance + "Alarm", what: "disarm", req: &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}},
		{method: maintenance + "Status", req: &pb.StatusRequest{}},
		{method: maintenance + "Defragment", req: &pb.DefragmentRequest{}},
		{method: maintenance + "Hash", req: &pb.HashRequest{}},
		{method: maintenance + "HashKV", req: &pb.HashKVRequest{}},
		{method: maintenance + "Snapshot", req: &pb.SnapshotRequest{}},
		{method: maintenance + "MoveLeader", req: &pb.MoveLeaderRequest{TargetID: unknown}, leader: true},
		{method: maintenance + "Downgrade", req: &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.6.0"}},
	}
}

// ofAuth changes nothing, so that no token gets old.
func ofAuth() []call {
	const auth = "/etcdserverpb.Auth/"
	permission := &authpb.Permission{Key: key("k")}
	return []call{
		{method: auth + "AuthStatus", req: &pb.AuthStatusRequest{}},
		{method: auth + "Authenticate", req: &pb.AuthenticateRequest{Name: "insider", Password: "wrong"}},
		{method: auth + "AuthEnable", req: &pb.AuthEnableRequest{}},
		{method: auth + "UserAdd", req: &pb.AuthUserAddRequest{Name: "root", Options: &authpb.UserAddOptions{NoPassword: true}}},
		{method: auth + "UserGet", what: "oneself", req: &pb.AuthUserGetRequest{Name: "insider"}},
		{method: auth + "UserGet", what: "root", req: &pb.AuthUserGetRequest{Name: "root"}},
		{method: auth + "UserList", req: &pb.AuthUserListRequest{}},
		{method: auth + "UserDelete", req: &pb.AuthUserDeleteRequest{Name: "nobody"}},
		{method: auth + "UserChangePassword", req: &pb.AuthUserChangePasswordRequest{Name: "nobody", Password: "x"}},
		{method: auth + "UserGrantRole", req: &pb.AuthUserGrantRoleRequest{User: "root", Role: "none"}},
		{method: auth + "UserRevokeRole", req: &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "none"}},
		{method: auth + "RoleAdd", req: &pb.AuthRoleAddRequest{Name: "root"}},
		{method: auth + "RoleGet", what: "one's own", req: &pb.AuthRoleGetRequest{Role: "insider"}},
		{method: auth + "RoleGet", what: "root", req: &pb.AuthRoleGetRequest{Role: "root"}},
		{method: auth + "RoleList", req: &pb.AuthRoleListRequest{}},
		{method: auth + "RoleDelete", req: &pb.AuthRoleDeleteRequest{Role: "none"}},
		{method: auth + "RoleGrantPermission", req: &pb.AuthRoleGrantPermissionRequest{Name: "none", Perm: permission}},
		{method: auth + "RoleRevokePermission", req: &pb.AuthRoleRevokePermissionRequest{Role: "none", Key: key("k")}},
	}
}

// ofSessions asks for what root holds already, inside.
func ofSessions() []call {
	const lock, election = "/v3lockpb.Lock/", "/v3electionpb.Election/"
	leader := &v3electionpb.LeaderKey{Name: key("in/election"), Key: fmt.Appendf(nil, "in/election/%x", sessions), Lease: sessions, Rev: unknown}
	return []call{
		{method: lock + "Lock", req: &v3lockpb.LockRequest{Name: key("in/lock"), Lease: sessions}},
		{method: lock + "Unlock", req: &v3lockpb.UnlockRequest{Key: key("in/nothing")}},
		{method: election + "Campaign", req: &v3electionpb.CampaignRequest{Name: key("in/election"), Lease: sessions, Value: key("x")}},
		{method: election + "Proclaim", req: &v3electionpb.ProclaimRequest{Leader: leader, Value: key("x")}},
		{method: election + "Leader", req: &v3electionpb.LeaderRequest{Name: key("in/election")}},
		{method: election + "Observe", req: &v3electionpb.LeaderRequest{Name: key("in/election")}},
		{method: election + "Resign", req: &v3electionpb.ResignRequest{Leader: leader}},
	}
}

func ofServer() []call {
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	//lint:ignore SA1019 servers still offer it
	listAlpha := &reflectionalpha.ServerReflectionRequest{MessageRequest: &reflectionalpha.ServerReflectionRequest_ListServices{}}
	return []call{
		{method: "/grpc.health.v1.Health/Check", req: &healthpb.HealthCheckRequest{}},
		{method: "/grpc.health.v1.Health/Watch", req: &healthpb.HealthCheckRequest{}},
		{method: "/grpc.health.v1.Health/List", req: &healthpb.HealthListRequest{}},
		{method: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", req: list, ours: true},
		{method: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", req: listAlpha, ours: true},
	}
}

// last are calls that end what the others need. Only who may not make them makes
// them before the end.
func last() []call {
	return []call{
		{method: "/etcdserverpb.Cluster/MemberAdd", req: &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}},
		{method: "/etcdserverpb.Lease/LeaseRevoke", what: "of all", req: &pb.LeaseRevokeRequest{ID: lease}},
		{method: "/etcdserverpb.Auth/AuthDisable", req: &pb.AuthDisableRequest{}},
	}
}

// calls are all but the last.
func calls() (all []call) {
	for _, of := range [][]call{ofKV(), ofLeases(), ofCluster(), ofAuth(), ofSessions(), ofServer()} {
		all = append(all, of...)
	}
	return all
}

// Every method that a server has is asked for.
func wantComplete(t *testing.T, served []string) {
	t.Helper()
	asked := map[string]bool{}
	for _, c := range append(calls(), last()...) {
		asked[c.method] = true
	}
	for _, method := range served {
		if !asked[method] {
			t.Errorf("no call of %s", method)
		}
	}
}
