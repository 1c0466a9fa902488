package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concord-kv/concord/compat/servers"
)

// user uses a cluster both ways: by the services Lock and Election, with etcd's
// generated code, and by clientv3's package concurrency.
type user struct {
	t        *testing.T
	ctx      context.Context
	client   *clientv3.Client
	lock     v3lockpb.LockClient
	election v3electionpb.ElectionClient
}

// everywhere runs f on etcd and on Concord with one member and three, where the
// services are another member's than the client's.
func everywhere(t *testing.T, f func(u *user)) {
	for _, c := range []struct {
		name    string
		members int
	}{{"etcd", 1}, {"concord", 1}, {"concord", 3}} {
		t.Run(fmt.Sprintf("%s-%d", c.name, c.members), func(t *testing.T) {
			cluster := servers.Start(t, c.name, c.members)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints[:1], DialTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var conn grpc.ClientConnInterface = cluster.Conns[c.members-1]
			f(&user{t, ctx, client, v3lockpb.NewLockClient(conn), v3electionpb.NewElectionClient(conn)})
		})
	}
}

func must[T any](u *user) func(T, error) T {
	return func(v T, err error) T {
		u.t.Helper()
		if err != nil {
			u.t.Fatal(err)
		}
		return v
	}
}

func (u *user) session() *concurrency.Session {
	u.t.Helper()
	s := must[*concurrency.Session](u)(concurrency.NewSession(u.client, concurrency.WithTTL(60)))
	u.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (u *user) lease() int64 {
	u.t.Helper()
	return int64(must[*clientv3.LeaseGrantResponse](u)(u.client.Grant(u.ctx, 60)).ID)
}

// queued waits until a prefix has n keys.
func (u *user) queued(prefix string, n int64) {
	u.t.Helper()
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	watch := u.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(1))
	for {
		got := must[*clientv3.GetResponse](u)(u.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()))
		if got.Count == n {
			return
		}
		select {
		case <-watch:
		case <-ctx.Done():
			u.t.Fatal(ctx.Err())
		}
	}
}

// TestLocks lets holders by both ways take turns, then compete.
func TestLocks(t *testing.T) {
	everywhere(t, func(u *user) {
		mutex := concurrency.NewMutex(u.session(), "lock")
		if err := mutex.Lock(u.ctx); err != nil {
			u.t.Fatal(err)
		}
		lease := u.lease()
		held := make(chan []byte, 1)
		var waiting errgroup.Group
		waiting.Go(func() error {
			r, err := u.lock.Lock(u.ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: lease})
			held <- r.GetKey()
			return err
		})
		u.queued("lock/", 2)
		select {
		case <-held:
			u.t.Fatal("the service gave a lock away that clientv3 holds")
		default:
		}
		if err := mutex.Unlock(u.ctx); err != nil {
			u.t.Fatal(err)
		}
		key := <-held
		if err := waiting.Wait(); err != nil || string(key) != fmt.Sprintf("lock/%x", lease) {
			u.t.Fatalf("%s, %v", key, err)
		}
		other := concurrency.NewMutex(u.session(), "lock")
		if err := other.TryLock(u.ctx); err != concurrency.ErrLocked {
			u.t.Fatalf("clientv3 took a lock that the service gave away: %v", err)
		}
		waiting.Go(func() error { return other.Lock(u.ctx) })
		u.queued("lock/", 2)
		must[*v3lockpb.UnlockResponse](u)(u.lock.Unlock(u.ctx, &v3lockpb.UnlockRequest{Key: key}))
		if err := waiting.Wait(); err != nil {
			u.t.Fatal(err)
		}
		if err := other.Unlock(u.ctx); err != nil {
			u.t.Fatal(err)
		}
		u.compete()
	})
}

// compete counts under the lock, from both sides at once. The race detector
// would see two holders, and so does the count.
func (u *user) compete() {
	u.t.Helper()
	counter := 0
	var all errgroup.Group
	for range 3 {
		s, lease := u.session(), u.lease()
		all.Go(func() error {
			m := concurrency.NewMutex(s, "both")
			for range 10 {
				if err := m.Lock(u.ctx); err != nil {
					return err
				}
				counter++
				if err := m.Unlock(u.ctx); err != nil {
					return err
				}
			}
			return nil
		})
		all.Go(func() error {
			for range 10 {
				r, err := u.lock.Lock(u.ctx, &v3lockpb.LockRequest{Name: []byte("both"), Lease: lease})
				if err != nil {
					return err
				}
				counter++
				if _, err := u.lock.Unlock(u.ctx, &v3lockpb.UnlockRequest{Key: r.Key}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil || counter != 60 {
		u.t.Fatalf("counted to %d, %v", counter, err)
	}
}

// TestElections lets both sides lead in turns, and both observe.
func TestElections(t *testing.T) {
	everywhere(t, func(u *user) {
		observed := must[v3electionpb.Election_ObserveClient](u)(u.election.Observe(u.ctx, &v3electionpb.LeaderRequest{Name: []byte("e")}))
		sees := func(value string) {
			u.t.Helper()
			for {
				r := must[*v3electionpb.LeaderResponse](u)(observed.Recv())
				if string(r.Kv.Value) == value {
					return
				}
			}
		}
		own := concurrency.NewElection(u.session(), "e")
		watching := concurrency.NewElection(u.session(), "e").Observe(u.ctx)
		clientSees := func(value string) {
			u.t.Helper()
			for r := range watching {
				if string(r.Kvs[0].Value) == value {
					return
				}
			}
			u.t.Fatalf("clientv3 never saw %s", value)
		}
		won := must[*v3electionpb.CampaignResponse](u)(u.election.Campaign(u.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: u.lease(), Value: []byte("one")}))
		sees("one")
		clientSees("one")
		var waiting errgroup.Group
		waiting.Go(func() error { return own.Campaign(u.ctx, "two") })
		u.queued("e/", 2)
		must[*v3electionpb.ProclaimResponse](u)(u.election.Proclaim(u.ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("still one")}))
		sees("still one")
		clientSees("still one")
		leader := must[*clientv3.GetResponse](u)(own.Leader(u.ctx))
		if string(leader.Kvs[0].Key) != string(won.Leader.Key) || leader.Kvs[0].CreateRevision != won.Leader.Rev {
			u.t.Fatalf("clientv3 sees %v lead, the service %v", leader.Kvs[0], won.Leader)
		}
		must[*v3electionpb.ResignResponse](u)(u.election.Resign(u.ctx, &v3electionpb.ResignRequest{Leader: won.Leader}))
		if err := waiting.Wait(); err != nil {
			u.t.Fatal(err)
		}
		sees("two")
		clientSees("two")
		next := make(chan error, 1)
		go func() {
			_, err := u.election.Campaign(u.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: u.lease(), Value: []byte("three")})
			next <- err
		}()
		u.queued("e/", 2)
		if err := own.Resign(u.ctx); err != nil {
			u.t.Fatal(err)
		}
		if err := <-next; err != nil {
			u.t.Fatal(err)
		}
		sees("three")
		clientSees("three")
	})
}

// TestDescriptors compares what reflection says of the services with etcd's own
// descriptors, which this program has linked.
func TestDescriptors(t *testing.T) {
	conn := servers.Concord(t, 1).Conns[0]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []protoreflect.FileDescriptor{
		(&v3lockpb.LockRequest{}).ProtoReflect().Descriptor().ParentFile(),
		(&v3electionpb.LeaderKey{}).ProtoReflect().Descriptor().ParentFile(),
	} {
		service := string(want.Services().Get(0).FullName())
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		files := r.GetFileDescriptorResponse().GetFileDescriptorProto()
		if len(files) == 0 {
			t.Fatalf("%s: %v", service, r)
		}
		got := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(files[0], got); err != nil {
			t.Fatal(err)
		}
		bare := func(f *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
			f.Options, f.Dependency, f.SourceCodeInfo = nil, nil, nil
			for _, s := range f.Service {
				for _, m := range s.Method {
					m.InputType, m.OutputType = proto.String(full(f, m.GetInputType())), proto.String(full(f, m.GetOutputType()))
				}
			}
			return f
		}
		if diff := cmp.Diff(bare(protodesc.ToFileDescriptorProto(want)), bare(got), protocmp.Transform()); diff != "" {
			t.Errorf("%s (- etcd, + concord):\n%s", service, diff)
		}
	}
}

// full is the full name of a message that a file may name in short.
func full(f *descriptorpb.FileDescriptorProto, name string) string {
	if name[0] == '.' {
		return name
	}
	return "." + f.GetPackage() + "." + name
}
