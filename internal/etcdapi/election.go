package etcdapi

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
)

// electionServer is the service v3electionpb.Election: what etcd's
// client/v3/concurrency does, by its keys. The leader is the key of the prefix
// with the lowest create revision.
type electionServer struct {
	*API
	// leaderKey describes v3electionpb.LeaderKey, observed a LeaderResponse.
	leaderKey, observed protoreflect.MessageDescriptor
}

// campaign makes the candidate's key, or sets its value, and waits until it is
// the oldest. Unlike etcd's it fails when the key is gone by then.
func (s electionServer) campaign(ctx context.Context, r, resp lockpb.Message) error {
	lease, err := s.session(ctx, r.Int64("lease"))
	if err != nil {
		return err
	}
	put := kv.Op{Kind: kv.OpPut, Value: r.Bytes("value"), Lease: lease}
	c, err := s.enter(ctx, r.Bytes("name"), put)
	if err != nil {
		return err
	}
	if c.old != nil && !bytes.Equal(c.old.Value, put.Value) {
		put.Key = c.key
		if _, err := s.write(ctx, c.created, put); err != nil {
			s.release(ctx, &c)
			return err
		}
	}
	if !c.oldest {
		if _, err := s.await(ctx, &c); errors.Is(err, errGone) {
			return errNotElected
		} else if err != nil {
			return err
		}
	}
	leader := lockpb.NewMessage(s.leaderKey).
		With("name", r.Bytes("name")).With("key", c.key).With("rev", int64(c.created)).With("lease", int64(lease))
	resp.With("leader", leader).With("header", s.header(c.at, extensions{}).ProtoReflect())
	return nil
}

// write runs put if its key is still the one that was created at rev.
func (s electionServer) write(ctx context.Context, rev kv.Revision, put kv.Op) (kv.Header, error) {
	res, err := s.store.Txn(ctx, kv.Txn{
		Compare: []kv.Compare{{Key: put.Key, Target: kv.CompareCreate, Number: int64(rev)}},
		Success: []kv.Op{put},
	})
	if err == nil && !res.Succeeded {
		err = errNotElected
	}
	return res.Header, err
}

// proclaim sets the value of the one who leads.
func (s electionServer) proclaim(ctx context.Context, r, resp lockpb.Message) error {
	leader, ok := r.Sub("leader")
	if !ok {
		return errNoLeaderKey
	}
	lease, err := s.session(ctx, leader.Int64("lease"))
	if err != nil {
		return err
	}
	at, err := s.write(ctx, kv.Revision(leader.Int64("rev")), kv.Op{
		Kind: kv.OpPut, Key: leader.Bytes("key"), Value: r.Bytes("value"), Lease: lease,
	})
	if err != nil {
		return err
	}
	resp.With("header", s.header(at, extensions{}).ProtoReflect())
	return nil
}

// resignLeader deletes the leader's key; that it does not lead is no error.
func (s electionServer) resignLeader(ctx context.Context, r, resp lockpb.Message) error {
	leader, ok := r.Sub("leader")
	if !ok {
		return errNoLeaderKey
	}
	res, err := s.resign(ctx, leader.Bytes("key"), kv.Revision(leader.Int64("rev")))
	if err != nil {
		return err
	}
	resp.With("header", s.header(res.Header, extensions{}).ProtoReflect())
	return nil
}

// leads returns the leader's key.
func (s electionServer) leads(ctx context.Context, r, resp lockpb.Message) error {
	prefix, _ := candidateKey(r.Bytes("name"), 0)
	res, err := s.store.Range(ctx, firstOf(prefix))
	switch {
	case err != nil:
		return err
	case len(res.KVs) == 0:
		return errNobodyElected
	}
	s.tell(resp, res.Header, &res.KVs[0])
	return nil
}

// tell fills a LeaderResponse.
func (s electionServer) tell(resp lockpb.Message, at kv.Header, leader *kv.KeyValue) {
	resp.With("header", s.header(at, extensions{}).ProtoReflect())
	resp.With("kv", fromKV(new(mvccpb.KeyValue), leader, extensions{}).ProtoReflect())
}

// observe sends the leader and every value and leader that comes after, until
// ctx ends.
func (s electionServer) observe(ctx context.Context, r lockpb.Message, stream grpc.ServerStream) error {
	prefix, _ := candidateKey(r.Bytes("name"), 0)
	send := func(at kv.Header, leader *kv.KeyValue) error {
		resp := lockpb.NewMessage(s.observed)
		s.tell(resp, at, leader)
		return stream.SendMsg(proto.Message(resp.Interface()))
	}
	var last kv.KeyValue
	for {
		at, leader, err := s.elected(ctx, prefix)
		// The same again only means that history was compacted.
		if err == nil && (leader.ModRevision != last.ModRevision || !bytes.Equal(leader.Key, last.Key)) {
			last = leader
			err = send(at, &leader)
		}
		if err == nil {
			err = s.follow(ctx, at.Revision, &last, send)
		}
		if err != nil && !errors.Is(err, kv.ErrCompacted) {
			return err
		}
	}
}

// elected waits until there is a leader.
func (s electionServer) elected(ctx context.Context, prefix []byte) (kv.Header, kv.KeyValue, error) {
	res, err := s.store.Range(ctx, firstOf(prefix))
	if err != nil || len(res.KVs) > 0 {
		return res.Header, first(res.KVs), err
	}
	leader, err := s.next(ctx, kv.WatchRequest{
		Key: prefix, End: kv.Prefix(prefix), Start: res.Header.Revision + 1, NoDelete: true,
	})
	return kv.Header{Revision: leader.ModRevision}, leader, err
}

func first(kvs []kv.KeyValue) kv.KeyValue {
	if len(kvs) == 0 {
		return kv.KeyValue{}
	}
	return kvs[0]
}

// follow sends the values that the leader's key takes after rev, until it is
// deleted, and keeps the last one sent in leader.
func (s electionServer) follow(ctx context.Context, rev kv.Revision, leader *kv.KeyValue, send func(kv.Header, *kv.KeyValue) error) error {
	for batch, err := range s.store.Watch(ctx, kv.WatchRequest{Key: leader.Key, Start: rev + 1}) {
		if err != nil {
			return err
		}
		for i := range batch.Events {
			e := &batch.Events[i]
			if e.Type == kv.DeleteEvent {
				return nil
			}
			*leader = e.KV
			if err := send(kv.Header{Revision: batch.Revision}, &e.KV); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}
