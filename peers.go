package concord

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/founding"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// peerHandler takes what other members send: questions about founding from the
// start, and messages once there is a replica.
type peerHandler struct {
	founder atomic.Pointer[founding.Founder]
	circle  atomic.Pointer[circle]
	replica atomic.Pointer[replica.Replica]
	node    atomic.Pointer[Node]
	serving chan struct{} // closed by serve
}

var _ transport.Handler = (*peerHandler)(nil)

func newPeerHandler() *peerHandler { return &peerHandler{serving: make(chan struct{})} }

// serve lets the replica have what comes from now on.
func (h *peerHandler) serve(n *Node) {
	h.replica.Store(n.replica)
	h.node.Store(n)
	close(h.serving)
}

var errEmptyCall = errors.New("the call is empty")

var errNotStarted = errors.New("this member is still starting")

func (h *peerHandler) Receive(from uint64, ch transport.Channel, payload []byte) {
	if r := h.replica.Load(); r != nil {
		r.Receive(from, ch, payload)
	}
}

// ReceiveStream waits for a member that has just joined: the leader sends it the
// state as soon as it can be reached.
func (h *peerHandler) ReceiveStream(from uint64, header []byte, body io.Reader) error {
	select {
	case <-h.serving:
		return h.replica.Load().ReceiveStream(from, header, body)
	case <-time.After(answerTimeout):
		return errNotStarted
	}
}

func (h *peerHandler) ReceiveCall(_ string, payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, errEmptyCall
	}
	switch f, n := h.founder.Load(), h.node.Load(); {
	case payload[0] == callWho:
		return h.circle.Load().answer()
	case payload[0] == callFounding && f != nil:
		return f.Answer(payload[1:])
	case payload[0] == callRequest && n != nil:
		return n.answer(payload[1:])
	}
	return nil, errNotStarted
}

func (h *peerHandler) PeerUp(id uint64) {
	if r := h.replica.Load(); r != nil {
		r.PeerUp(id)
	}
	if n := h.node.Load(); n != nil {
		n.figures.events.peer(observe.Connected, id, 0)
	}
}

func (h *peerHandler) PeerDown(id uint64) {
	if r := h.replica.Load(); r != nil {
		r.PeerDown(id)
	}
	if n := h.node.Load(); n != nil {
		n.figures.events.peer(observe.Disconnected, id, 0)
	}
}

// learn tells founding where to ask.
func (h *peerHandler) learn(addrs ...string) {
	if f := h.founder.Load(); f != nil {
		f.Learn(addrs...)
	}
}

// tendPeers keeps the transport's peers those of the member list.
func (n *Node) tendPeers(ctx context.Context) error {
	for {
		changed, news := n.machine.Reconfigured(), n.circle.news()
		n.connect()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-news:
		}
	}
}

// connect tells the transport whom to reach where: the member list says who,
// and where it knows; this member's own list of peers, and what others say of
// themselves, goes before it, because addresses may have changed while all were
// down.
func (n *Node) connect() {
	for _, m := range n.machine.Members() {
		if m.ID == n.id {
			continue
		}
		if addrs := n.peerAddrs(m); len(addrs) > 0 {
			n.transport.SetPeer(uint64(m.ID), addrs...)
		}
	}
	for _, p := range n.transport.Peers() {
		if n.machine.Removed(kv.MemberID(p.ID)) {
			n.transport.RemovePeer(p.ID)
		}
	}
}
