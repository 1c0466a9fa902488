package etcdapi

import (
	"context"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// Alarm lists, raises and clears alarms.
func (s *maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	upkeep, ok := s.cluster.(kv.Upkeep)
	if !ok {
		return nil, rpctypes.ErrGRPCNotCapable
	}
	asked := kv.Alarm{Member: kv.MemberID(r.MemberID), Type: kv.AlarmType(r.Alarm)}
	resp := new(pb.AlarmResponse)
	switch r.Action {
	case pb.AlarmRequest_GET:
		// The list is linearizable, as etcd's, and seldom asked for.
		if _, err := s.cluster.Members(ctx); err != nil {
			return nil, toStatus(err)
		}
		for _, a := range upkeep.Alarms() {
			if asked.Type == kv.AlarmAny || int32(asked.Type) == int32(fromAlarm(a).Alarm) {
				resp.Alarms = append(resp.Alarms, fromAlarm(a))
			}
		}
	case pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE:
		if asked.Type < 0 {
			return nil, rpctypes.ErrGRPCNotCapable
		}
		raised := r.Action == pb.AlarmRequest_ACTIVATE
		changed, err := upkeep.SetAlarm(ctx, asked, raised)
		if asked.Type == kv.AlarmCorrupt && !raised && err == nil {
			var too bool // clients see both as one
			too, err = upkeep.SetAlarm(ctx, kv.Alarm{Member: asked.Member, Type: kv.AlarmDivergent}, false)
			changed = changed || too
		}
		if err != nil {
			return nil, toStatus(err)
		}
		// The answer has the alarm that is raised now, or was cleared by this.
		if changed || raised && asked.Type != kv.AlarmAny {
			resp.Alarms = []*pb.AlarmMember{fromAlarm(asked)}
		}
	}
	resp.Header = s.header(s.now(), extensions{})
	return resp, nil
}

func fromAlarm(a kv.Alarm) *pb.AlarmMember {
	if a.Type == kv.AlarmDivergent {
		a.Type = kv.AlarmCorrupt
	}
	return &pb.AlarmMember{MemberID: uint64(a.Member), Alarm: pb.AlarmType(a.Type)}
}

// alarmTexts are the alarms as etcd's status lists them.
func alarmTexts(cluster kv.Cluster) (texts []string) {
	if upkeep, ok := cluster.(kv.Upkeep); ok {
		for _, a := range upkeep.Alarms() {
			texts = append(texts, fromAlarm(a).String())
		}
	}
	return texts
}

// What a request adds to the store's size, as etcd reckons (server/storage/
// quota.go), beside keys and values.
const (
	putCost   = 256
	grantCost = 64
)

// quota keeps a store below a size: what would make it larger raises the alarm
// for this member and is refused, and the alarm then refuses on all members.
type quota struct {
	kv.Store
	cluster kv.Cluster
	upkeep  kv.Upkeep
	max     int64

	// left may still be written before the size is looked at again. It is a
	// part only of what is left, because other members write too.
	left atomic.Int64
}

// limited puts the quota of the options, if any, before store.
func (a *API) limited(store kv.Store) kv.Store {
	upkeep, ok := a.cluster.(kv.Upkeep)
	if a.opts.Quota <= 0 || !ok {
		return store
	}
	return &quota{Store: store, cluster: a.cluster, upkeep: upkeep, max: a.opts.Quota}
}

// Txn implements [kv.KV].
func (q *quota) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if err := q.take(ctx, txnCost(&t)); err != nil {
		return kv.TxnResult{}, err
	}
	return q.Store.Txn(ctx, t)
}

// Grant implements [kv.Leaser].
func (q *quota) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	if err := q.take(ctx, grantCost); err != nil {
		return kv.LeaseResult{}, err
	}
	return q.Store.Grant(ctx, g)
}

// take admits a request that adds that much, or raises the alarm.
func (q *quota) take(ctx context.Context, cost int64) error {
	if cost == 0 || q.left.Add(-cost) > 0 {
		return nil
	}
	st := q.cluster.Status()
	left := q.max - storeSize(&st) - cost
	if left > 0 {
		q.left.Store(left / 8)
		return nil
	}
	q.left.Store(0)
	// Who may do nothing must not have writes stopped either.
	if guard, ok := q.Store.(kv.Guard); ok {
		if err := guard.Authorize(ctx, kv.AnyUser); err != nil {
			return err
		}
	}
	a := kv.Alarm{Member: st.Member, Type: kv.AlarmNoSpace}
	if !slices.Contains(q.upkeep.Alarms(), a) {
		// In the server's name, as the caller may not. Whether or not it can be
		// raised, this request is refused.
		_, _ = q.upkeep.SetAlarm(kv.WithoutCaller(ctx), a, true)
	}
	return kv.ErrNoSpace
}

// storeSize is what counts against the quota: keys, values and history.
func storeSize(st *kv.Status) int64 { return st.LiveBytes + st.HistoryBytes + st.Keys*putCost }

// txnCost is that of the dearer branch.
func txnCost(t *kv.Txn) int64 { return max(opsCost(t.Success), opsCost(t.Failure)) }

func opsCost(ops []kv.Op) (cost int64) {
	for i := range ops {
		switch op := &ops[i]; op.Kind {
		case kv.OpPut:
			cost += putCost + int64(len(op.Key)+len(op.Value))
		case kv.OpTxn:
			cost += txnCost(op.Txn)
		}
	}
	return cost
}
