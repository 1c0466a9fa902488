package differential

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/compat/servers"
)

// errNotEnoughStarted is what etcd sends: its clients know it by its text.
var errNotEnoughStarted = status.Error(codes.Unknown, rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted))

// agree makes calls of situations, one after another, and compares.
func agree(t *testing.T, p *pair, all []situation) {
	t.Helper()
	for _, s := range all {
		etcd, concord := p.both(s.do)
		if s.want != nil && !equal(answer{err: etcd.err}, answer{err: s.want}) {
			t.Errorf("%s: etcd says %v, expected %v", s.name, etcd, s.want)
		}
		if !equal(etcd, concord) {
			t.Errorf("%s:\n   etcd: %.1000v\nconcord: %.1000v", s.name, etcd, concord)
		}
	}
}

func alarm(name string, action pb.AlarmRequest_AlarmAction, member uint64, kind pb.AlarmType) situation {
	return of(name, nil, pb.NewMaintenanceClient, pb.MaintenanceClient.Alarm, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: kind})
}

// statusCall asks a member for its status once it is up to date.
var statusCall = situation{"status", nil, func(ctx context.Context, c *grpc.ClientConn) answer {
	if _, err := pb.NewKVClient(c).Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		return answer{nil, err}
	}
	resp, err := pb.NewMaintenanceClient(c).Status(ctx, &pb.StatusRequest{})
	return answer{resp, err}
}}

// everything has a request of each kind that an alarm may refuse; refused is
// what those that write are refused with.
func everything(writes, others error) []situation {
	a, b := []byte("a"), []byte("b")
	put := putOps("b")[0]
	return []situation{
		ask("put", writes, &pb.PutRequest{Key: a}),
		ask("put without key", rpctypes.ErrGRPCEmptyKey, &pb.PutRequest{}),
		ask("put of a lease that is not there", writes, &pb.PutRequest{Key: a, Lease: 5}),
		ask("transaction that puts", writes, &pb.TxnRequest{Success: []*pb.RequestOp{put}}),
		ask("transaction that does not put in the end", writes, &pb.TxnRequest{Failure: []*pb.RequestOp{put}}),
		ask("transaction that puts, nested", writes, &pb.TxnRequest{Success: []*pb.RequestOp{nest(&pb.TxnRequest{Failure: []*pb.RequestOp{put}})}}),
		ask("transaction that deletes", others, &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("x", "")}}),
		ask("transaction that reads", nil, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: a})}}),
		ask("range", nil, &pb.RangeRequest{Key: a, RangeEnd: []byte("z")}),
		ask("serializable range", nil, &pb.RangeRequest{Key: b, Serializable: true}),
		ask("delete", others, &pb.DeleteRangeRequest{Key: b}),
		ask("compaction", others, &pb.CompactionRequest{Revision: 1 << 40}),
		ask("grant", writes, &pb.LeaseGrantRequest{ID: 500, TTL: 100}),
		ask("renewal", nil, &pb.LeaseKeepAliveRequest{ID: 77}),
		ask("revocation of no lease", others, &pb.LeaseRevokeRequest{ID: 5}),
		statusCall,
	}
}

// TestAlarms raises and clears alarms, and asks for everything meanwhile.
func TestAlarms(t *testing.T) {
	const raise, clear, list = pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE, pb.AlarmRequest_GET
	const none, space, corrupt = pb.AlarmType_NONE, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT
	for _, members := range []int{1, 3} {
		p := newPair(t, members)
		for _, req := range prepared {
			if a, b := p.both(callOf(req)); a.err != nil || !equal(a, b) {
				t.Fatalf("%v\n   etcd: %v\nconcord: %v", req, a, b)
			}
		}
		agree(t, p, []situation{
			alarm("none", list, 0, none), alarm("raise none", raise, 9, none), alarm("clear none", clear, 9, none),
			alarm("raise", raise, 9, space), alarm("raise again", raise, 9, space), alarm("list", list, 0, none),
			alarm("list of a type", list, 0, space), alarm("list of another", list, 0, corrupt), alarm("list of a member", list, 4, space),
		})
		agree(t, p, everything(rpctypes.ErrGRPCNoSpace, nil))
		agree(t, p, []situation{
			alarm("clear another", clear, 4, space), alarm("clear of all members", clear, 0, space), alarm("clear", clear, 9, space),
			alarm("clear again", clear, 9, space), ask("put afterwards", nil, &pb.PutRequest{Key: []byte("a")}),
			alarm("raise for no member", raise, 0, corrupt),
		})
		agree(t, p, everything(rpctypes.ErrGRPCCorrupt, nil))
		agree(t, p, []situation{
			alarm("both", raise, 1, space), statusCall,
			alarm("clear of the first", clear, 0, corrupt), ask("put with the second", rpctypes.ErrGRPCNoSpace, &pb.PutRequest{Key: []byte("a")}),
			alarm("clear of the second", clear, 1, space), ask("put afterwards", nil, &pb.PutRequest{Key: []byte("a")}), statusCall,
		})
	}
}

func downgrade(name string, want error, action pb.DowngradeRequest_DowngradeAction, version string) situation {
	return of(name, want, pb.NewMaintenanceClient, pb.MaintenanceClient.Downgrade, &pb.DowngradeRequest{Action: action, Version: version})
}

// TestDowngrades asks for what cannot be, announces one and calls it off.
func TestDowngrades(t *testing.T) {
	const validate, enable, cancel = pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL
	p := newPair(t, 1)
	// A new etcd takes a while to agree on its version.
	eventually(t, func() (done bool, last any) {
		r, err := pb.NewMaintenanceClient(p.etcd.Conns[0]).Downgrade(t.Context(), &pb.DowngradeRequest{Action: validate, Version: "3.6"})
		return err == nil && r.Version == "3.7", answer{r, err}
	})
	all := []situation{ask("put", nil, &pb.PutRequest{Key: []byte("a")})}
	for _, action := range []pb.DowngradeRequest_DowngradeAction{validate, enable} {
		for _, version := range []string{"", "3", "3.x", "a.b.c", "3.6.", "3.6.0.1", "v3.6.0", " 3.6.0"} {
			all = append(all, downgrade(fmt.Sprintf("%v to %q", action, version), rpctypes.ErrGRPCWrongDowngradeVersionFormat, action, version))
		}
		for _, version := range []string{"3.5.0", "3.5", "3.7.0", "3.8.0", "2.6.0", "0.0.0"} {
			all = append(all, downgrade(fmt.Sprintf("%v to %q", action, version), rpctypes.ErrGRPCInvalidDowngradeTargetVersion, action, version))
		}
	}
	for _, version := range []string{"3.6", "3.6.0", "3.6.12", "3.6.0-rc.1", "3.6.0+x"} {
		all = append(all, downgrade("validation of "+version, nil, validate, version))
	}
	agree(t, p, append(all,
		downgrade("cancellation of none", nil, cancel, ""), downgrade("unknown action", nil, 7, "3.6"), statusCall,
		downgrade("announcement", nil, enable, "3.6.3"), downgrade("cancellation", nil, cancel, ""), statusCall,
		of("defragmentation", nil, pb.NewMaintenanceClient, pb.MaintenanceClient.Defragment, &pb.DefragmentRequest{}),
	))
}

// TestHashes makes the same history on both: hashes are equal to the bit, until
// something is compacted of which a transaction changed several keys.
func TestHashes(t *testing.T) {
	p := newPair(t, 3)
	rng := rand.New(rand.NewPCG(3, 4))
	key := func() []byte { return fmt.Appendf(nil, "k%02d", rng.IntN(40)) }
	make := func(req proto.Message) int64 {
		t.Helper()
		a, b := p.both(callOf(req))
		if a.err != nil || !equal(a, b) {
			t.Fatalf("%v\n   etcd: %v\nconcord: %v", req, a, b)
		}
		return a.msg.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().Revision
	}
	make(&pb.LeaseGrantRequest{ID: 77, TTL: 10_000})
	one := func() proto.Message {
		if rng.IntN(4) == 0 {
			return &pb.DeleteRangeRequest{Key: key()}
		}
		return &pb.PutRequest{Key: key(), Value: key(), Lease: int64(rng.IntN(2) * 77)}
	}
	var current int64
	compare := func(from int64) {
		t.Helper()
		for rev := from; rev <= current; rev += 7 {
			req := &pb.HashKVRequest{Revision: rev}
			a, err := pb.NewMaintenanceClient(p.etcd.Conns[0]).HashKV(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, conn := range p.concord.Conns {
				b, err := pb.NewMaintenanceClient(conn).HashKV(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if a.Hash != b.Hash || a.CompactRevision != b.CompactRevision || a.HashRevision != b.HashRevision {
					t.Fatalf("hash at %d of %d:\n   etcd: %v\nconcord: %v", rev, current, a, b)
				}
			}
		}
	}
	for range 150 {
		current = make(one())
	}
	settled(t, p, current)
	compare(1)
	compacted := current - 30
	make(&pb.CompactionRequest{Revision: compacted, Physical: true})
	for range 60 {
		var txn pb.TxnRequest
		for _, k := range rng.Perm(40)[:5] {
			txn.Success = append(txn.Success, putOps(fmt.Sprintf("k%02d", k))...)
		}
		txn.Success = append(txn.Success, deleteOp("x", "z"))
		current = make(&txn)
	}
	settled(t, p, current)
	compare(compacted + 1) // at it etcd answers what it hashed before it compacted
}

// settled waits until all members have applied a revision.
func settled(t *testing.T, p *pair, rev int64) {
	t.Helper()
	for _, conn := range p.concord.Conns {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		defer cancel()
		if r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil || r.Header.Revision != rev {
			t.Fatalf("%v, %v; want revision %d", r, err, rev)
		}
	}
}

// eventually tries until it is done, for a minute.
func eventually(t *testing.T, try func() (done bool, last any)) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		done, last := try()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(last)
		}
	}
}

// trio is three members of each.
func trio(t *testing.T) *pair {
	t.Helper()
	return &pair{etcd: servers.Etcd(t, 3), concord: servers.Concord(t, 3)}
}

// TestReconfiguration makes changes of members that etcd checks strictly. A new
// etcd refuses all changes until its members have known each other for five
// seconds.
func TestReconfiguration(t *testing.T) {
	p := trio(t)
	cluster := pb.NewClusterClient
	add := func(name string, want error, learner bool, port int) situation {
		return situation{name, want, func(ctx context.Context, c *grpc.ClientConn) answer { // ids order the list
			_, err := cluster(c).MemberAdd(ctx, &pb.MemberAddRequest{
				PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", port)}, IsLearner: learner})
			return answer{nil, err}
		}}
	}
	eventually(t, func() (done bool, last any) {
		a := add("", nil, true, 1).do(t.Context(), p.etcd.Conns[0])
		return a.err == nil, a
	})
	if a := add("", nil, true, 1).do(t.Context(), p.concord.Conns[0]); a.err != nil {
		t.Fatal(a.err)
	}
	learner := func(do func(context.Context, pb.ClusterClient, uint64) error) call {
		return func(ctx context.Context, c *grpc.ClientConn) answer {
			client := cluster(c)
			list, err := client.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			if err != nil {
				return answer{nil, err}
			}
			for _, m := range list.Members {
				if m.IsLearner {
					return answer{nil, do(ctx, client, m.ID)}
				}
			}
			return answer{nil, errors.New("there is no learner")}
		}
	}
	agree(t, p, []situation{
		add("another learner", rpctypes.ErrGRPCTooManyLearners, true, 2),
		{"promotion too early", rpctypes.ErrGRPCLearnerNotReady, learner(func(ctx context.Context, c pb.ClusterClient, id uint64) error {
			_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
			return err
		})},
		{"leadership to the learner", nil, func(ctx context.Context, c *grpc.ClientConn) answer {
			return learner(func(ctx context.Context, _ pb.ClusterClient, id uint64) error {
				return moveOnLeader(ctx, p, c, id)
			})(ctx, c)
		}},
		{"removal of the learner", nil, learner(func(ctx context.Context, c pb.ClusterClient, id uint64) error {
			_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
			return err
		})},
		of("removal of an unknown member", rpctypes.ErrGRPCMemberNotFound, cluster, pb.ClusterClient.MemberRemove, &pb.MemberRemoveRequest{ID: 5}),
		add("a voter", nil, false, 3),
		add("a second voter", nil, false, 4),
		add("a third voter", errNotEnoughStarted, false, 5),
	})
}

// moveOnLeader asks the leader of c's cluster.
func moveOnLeader(ctx context.Context, p *pair, c *grpc.ClientConn, id uint64) (err error) {
	conns := p.concord.Conns
	for _, conn := range p.etcd.Conns {
		if conn == c {
			conns = p.etcd.Conns
		}
	}
	for _, conn := range conns {
		_, err = pb.NewMaintenanceClient(conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: id})
		if status.Convert(err).Message() != rpctypes.ErrorDesc(rpctypes.ErrGRPCNotLeader) {
			return err
		}
	}
	return err
}

// TestLastMember asks one member alone to remove itself, and to hand leadership
// to itself.
func TestLastMember(t *testing.T) {
	p := newPair(t, 1)
	agree(t, p, []situation{
		{"removal of the last member", errNotEnoughStarted, withMember(func(ctx context.Context, c pb.ClusterClient, m *pb.Member) error {
			_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID})
			return err
		})},
		{"leadership to the leader", nil, func(ctx context.Context, c *grpc.ClientConn) answer {
			return withMember(func(ctx context.Context, _ pb.ClusterClient, m *pb.Member) error {
				_, err := pb.NewMaintenanceClient(c).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: m.ID})
				return err
			})(ctx, c)
		}},
	})
}
