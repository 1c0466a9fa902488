package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/kv"
)

// txnReply makes the answer to a transaction. Answers inside it have headers
// with a revision only, as etcd's: the one before the transaction until
// something has changed.
type txnReply struct {
	x extensions
	// revision is the store's after the operations answered so far.
	revision kv.Revision
	changed  bool
}

// fromTxn leaves the outermost header out.
func fromTxn(r *pb.TxnRequest, t *kv.TxnResult, x extensions) *pb.TxnResponse {
	reply := txnReply{x: x, revision: t.Revision}
	if changes(t) {
		reply.revision--
	}
	return reply.txn(r, t)
}

// changes reports whether an operation in t has changed something.
func changes(t *kv.TxnResult) bool {
	for i := range t.Ops {
		switch o := &t.Ops[i]; o.Kind {
		case kv.OpPut:
			return true
		case kv.OpDelete:
			if o.Deleted > 0 {
				return true
			}
		case kv.OpTxn:
			if changes(o.Txn) {
				return true
			}
		}
	}
	return false
}

func (a *txnReply) txn(r *pb.TxnRequest, t *kv.TxnResult) *pb.TxnResponse {
	resp := &pb.TxnResponse{Succeeded: t.Succeeded}
	ops := r.Success
	if !t.Succeeded {
		ops = r.Failure
	}
	if len(t.Ops) == 0 {
		return resp
	}
	resp.Responses = make([]*pb.ResponseOp, len(t.Ops))
	for i := range t.Ops {
		resp.Responses[i] = a.op(ops[i], &t.Ops[i])
	}
	return resp
}

func (a *txnReply) op(r *pb.RequestOp, o *kv.OpResult) *pb.ResponseOp {
	switch o.Kind {
	case kv.OpPut:
		resp := fromPut(o, a.x)
		resp.Header = a.header(true)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}
	case kv.OpDelete:
		resp := fromDelete(o, a.x)
		resp.Header = a.header(o.Deleted > 0)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}
	case kv.OpRange:
		finishRange(r.GetRequestRange(), o.Range, a.x)
		resp := fromRange(o.Range, a.x)
		resp.Header = a.header(false)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}
	}
	resp := a.txn(r.GetRequestTxn(), o.Txn)
	resp.Header = new(pb.ResponseHeader) // which etcd does not fill
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}
}

// header is that of an operation which has changed something, or not.
func (a *txnReply) header(changed bool) *pb.ResponseHeader {
	if changed && !a.changed {
		a.changed = true
		a.revision++
	}
	return &pb.ResponseHeader{Revision: int64(a.revision)}
}
