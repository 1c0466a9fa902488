package concord

import (
	"context"
	"crypto/rand"
	"sync"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// commands are the buffers that commands are encoded in. The replica copies
// what it is given.
var commands = sync.Pool{New: func() any { return new([]byte) }}

// largestPooled is the longest buffer that is kept for reuse.
const largestPooled = 64 << 10

// propose encodes a command with encode, has it applied and returns its result.
func (n *Node) propose(ctx context.Context, encode func([]byte) []byte) (any, error) {
	return n.proposeIn(ctx, nil, encode)
}

// proposeIn is propose as a part of a call, which is timed unless it is nil.
func (n *Node) proposeIn(ctx context.Context, c *call, encode func([]byte) []byte) (any, error) {
	buf := commands.Get().(*[]byte)
	cmd := c.mark(machine.AppendCaller(encode((*buf)[:0]), 0, n.caller(ctx)))
	result, err := n.submit(ctx, c, cmd)
	if cap(cmd) <= largestPooled {
		*buf = cmd
		commands.Put(buf)
	}
	if err != nil {
		return nil, mapError(err)
	}
	if err, ok := result.(error); ok {
		return nil, err
	}
	return result, nil
}

// submit has a command applied that all members understand. c may be nil.
func (n *Node) submit(ctx context.Context, c *call, cmd []byte) (any, error) {
	if n.service.aside.Load() {
		return nil, kv.ErrSetAside
	}
	if err := n.machine.Proposable(cmd); err != nil {
		return nil, err
	}
	if c != nil {
		return n.replica.ProposeTimed(ctx, cmd, &c.timing)
	}
	return n.replica.Propose(ctx, cmd)
}

// Txn implements [kv.KV].
func (n *Node) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	c := n.begin(ctx, observe.OpTxn)
	size, err := n.cfg.limits.CheckTxn(&t)
	var res kv.TxnResult
	if err == nil {
		res, err = n.runTxn(ctx, c, &t, size)
	}
	if c != nil {
		c.txn(&t, size, &res)
		n.end(ctx, c, err)
	}
	return res, err
}

// runTxn runs a transaction that is within the limits.
func (n *Node) runTxn(ctx context.Context, c *call, t *kv.Txn, size int64) (kv.TxnResult, error) {
	if t.ReadOnly() {
		return n.readTxn(ctx, t)
	}
	if err := n.checkRoom(t, size); err != nil {
		return kv.TxnResult{}, err
	}
	if size > machine.PieceBytes {
		return n.largeTxn(ctx, c, t)
	}
	return n.txn(ctx, c, t)
}

// txn is the way of nearly all writes: encode, replicate, apply.
func (n *Node) txn(ctx context.Context, c *call, t *kv.Txn) (kv.TxnResult, error) {
	buf := commands.Get().(*[]byte)
	cmd := c.mark(machine.AppendCaller(machine.EncodeTxn((*buf)[:0], t), 0, n.caller(ctx)))
	result, err := n.submit(ctx, c, cmd)
	if cap(cmd) <= largestPooled {
		*buf = cmd
		commands.Put(buf)
	}
	if err != nil {
		return kv.TxnResult{}, mapError(err)
	}
	return txnResult(result)
}

func txnResult(result any) (kv.TxnResult, error) {
	switch r := result.(type) {
	case *kv.TxnResult:
		return *r, nil
	case error:
		return kv.TxnResult{}, r
	}
	return kv.TxnResult{}, unexpected(result)
}

// leastStaged is the shortest value that travels apart from a large
// transaction.
const leastStaged = 32 << 10

// largeTxn sends the long values of t ahead in pieces, a log entry each, so
// that heartbeats and small writes pass between them, and then the transaction
// that makes them visible.
func (n *Node) largeTxn(ctx context.Context, c *call, t *kv.Txn) (kv.TxnResult, error) {
	staged := machine.Staged(t, leastStaged)
	if len(staged) == 0 {
		return n.txn(ctx, c, t)
	}
	if err := n.allow(ctx, t); err != nil {
		return kv.TxnResult{}, err
	}
	var total, offset int64
	for _, value := range staged {
		total += int64(len(value))
	}
	if err := n.cfg.memory.enterLarge(total); err != nil {
		return kv.TxnResult{}, err
	}
	defer n.cfg.memory.sending.Add(-total)
	var id machine.UploadID
	_, _ = rand.Read(id[:]) // never fails, by its documentation
	for _, value := range staged {
		for len(value) > 0 {
			piece := value[:min(len(value), machine.PieceBytes)]
			if _, err := n.propose(ctx, func(dst []byte) []byte {
				return machine.EncodePiece(dst, machine.Piece{Upload: id, Offset: offset, Total: total}, piece)
			}); err != nil {
				return kv.TxnResult{}, notVisible(err)
			}
			offset += int64(len(piece))
			value = value[len(piece):]
		}
	}
	result, err := n.proposeIn(ctx, c, func(dst []byte) []byte {
		return machine.EncodeUploadTxn(dst, t, id, leastStaged)
	})
	if err != nil {
		return kv.TxnResult{}, err
	}
	return txnResult(result)
}

// allow returns nil when the caller may run t, as far as this member knows,
// before it is sent on a long way.
func (n *Node) allow(ctx context.Context, t *kv.Txn) error {
	view := n.machine.ViewAs(n.caller(ctx))
	defer view.Close()
	return view.Allow(t)
}

// notVisible says that err stopped a large value before anything could be
// seen: pieces that were staged expire.
func notVisible(err error) error {
	return kv.Errorf(kv.CodeOf(err), "send a large value in pieces: %v; nothing was written", err)
}

// Compact implements [kv.KV].
func (n *Node) Compact(ctx context.Context, rev kv.Revision) (kv.Header, error) {
	if rev < 0 {
		return kv.Header{}, &kv.CompactedError{Compacted: n.machine.CompactRevision()}
	}
	return n.headerCall(ctx, observe.OpCompact, func(dst []byte) []byte { return machine.EncodeCompact(dst, rev) })
}

// headerCall is headerCommand as a call of somebody's.
func (n *Node) headerCall(ctx context.Context, op observe.Op, encode func([]byte) []byte) (kv.Header, error) {
	c := n.begin(ctx, op)
	h, err := n.headerCommandIn(ctx, c, encode)
	if c != nil {
		c.event.Revision = int64(h.Revision)
		n.end(ctx, c, err)
	}
	return h, err
}

func (n *Node) headerCommand(ctx context.Context, encode func([]byte) []byte) (kv.Header, error) {
	return n.headerCommandIn(ctx, nil, encode)
}

func (n *Node) headerCommandIn(ctx context.Context, c *call, encode func([]byte) []byte) (kv.Header, error) {
	result, err := n.proposeIn(ctx, c, encode)
	if err != nil {
		return kv.Header{}, err
	}
	if h, ok := result.(*kv.Header); ok {
		return *h, nil
	}
	return kv.Header{}, unexpected(result)
}

// Put writes one key; see [kv.WithTTL], [kv.WithLease] and [kv.WithPrev].
func (n *Node) Put(ctx context.Context, key, value string, opts ...kv.PutOption) (kv.PutResult, error) {
	return kv.Put(ctx, n, key, value, opts...)
}

// Delete removes one key. Deleting a key that is not there is no error.
func (n *Node) Delete(ctx context.Context, key string) (kv.DeleteResult, error) {
	return kv.Delete(ctx, n, key)
}

func unexpected(result any) error {
	return kv.Errorf(kv.Internal, "a command gave a result of type %T, which it cannot give", result)
}
