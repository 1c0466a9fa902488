package concord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/divergence"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// Members ask each other, besides Raft's messages, by calls to an address. The
// first byte of a call says what it is.
const (
	callFounding = 'f' // a founding.Status
	callRequest  = 'r' // a peerRequest
	callWho      = 'w' // nothing; the answer is a discovery.Announcement
)

// peerRequest asks a member for one thing.
type peerRequest struct {
	// Join asks to become a member, Claim to be the one that was added for its
	// peer address, Meet who the members are.
	Join  *kv.Member `json:"join,omitempty"`
	Claim *kv.Member `json:"claim,omitempty"`
	Meet  bool       `json:"meet,omitempty"`
	// Figures asks how the member is, Judgement how its autopilot sees the
	// cluster.
	Figures   bool `json:"figures,omitempty"`
	Judgement bool `json:"judgement,omitempty"`
	// Memory tells that the member that asks is full, or is not any more.
	Memory *memoryNote `json:"memory,omitempty"`
	// Hashes asks for the running hashes of the state at these indexes.
	Hashes *[]kv.Index `json:"hashes,omitempty"`
	// Change asks the leader for a change of membership, Move for one of
	// leadership (0: whoever is best).
	Change []machine.MemberChange `json:"change,omitempty"`
	// Caller is in whose name Change is asked for; nil for the member's own.
	Caller *kv.Caller   `json:"caller,omitempty"`
	Move   *kv.MemberID `json:"move,omitempty"`
}

// peerReply answers it. Without an error the request was carried out.
type peerReply struct {
	Code    kv.Code `json:"code,omitempty"`
	Error   string  `json:"error,omitempty"`
	Unknown bool    `json:"unknown,omitempty"` // the outcome
	// Cluster and Members answer Join, Claim and Meet.
	Cluster kv.ClusterID `json:"cluster,string,omitempty"`
	Members []kv.Member  `json:"members,omitempty"`
	// Figures, Judgement and Hashes answer those.
	Figures   *memberFigures     `json:"figures,omitempty"`
	Judgement *steward.Report    `json:"judgement,omitempty"`
	Hashes    *divergence.Hashes `json:"hashes,omitempty"`
}

// foundingCaller marks what founding asks.
type foundingCaller struct{ *transport.Transport }

func (c foundingCaller) Call(ctx context.Context, addr string, payload []byte) ([]byte, error) {
	return c.Transport.Call(ctx, addr, append([]byte{callFounding}, payload...))
}

// ask sends a request to the member at addr.
func (n *Node) ask(ctx context.Context, addr string, req peerRequest) (reply peerReply, err error) {
	data, err := json.Marshal(req)
	if err != nil {
		return reply, fmt.Errorf("encode request: %w", err)
	}
	answer, err := n.transport.Call(ctx, addr, append([]byte{callRequest}, data...))
	if err != nil {
		return reply, fmt.Errorf("ask member at %s: %w", addr, err)
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return reply, fmt.Errorf("answer of member at %s: %w", addr, err)
	}
	if reply.Error != "" {
		e := &kv.Error{Code: reply.Code, Message: reply.Error}
		if reply.Unknown {
			e.Err = kv.ErrUnavailable
		}
		return reply, e
	}
	return reply, nil
}

// answerTimeout bounds the work for another member's request.
const answerTimeout = 5 * time.Second

// answer carries out another member's request.
func (n *Node) answer(data []byte) ([]byte, error) {
	var req peerRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	var reply peerReply
	var err error
	switch {
	case req.Join != nil:
		reply, err = n.admit(ctx, *req.Join)
	case req.Claim != nil:
		reply, err = n.grant(ctx, *req.Claim)
	case req.Meet:
		reply = peerReply{Cluster: n.machine.Cluster(), Members: n.machine.Members()}
	case req.Figures:
		reply.Figures = n.measure()
	case req.Judgement:
		reply.Judgement = new(n.judgement())
	case req.Memory != nil:
		err = n.hearMemory(*req.Memory)
	case req.Hashes != nil:
		reply.Hashes = n.hashes(*req.Hashes)
	case len(req.Change) > 0:
		if req.Caller != nil {
			ctx = kv.WithCaller(ctx, *req.Caller)
		}
		err = n.changeHere(ctx, req.Change)
	case req.Move != nil:
		err = mapError(n.replica.TransferLeader(ctx, uint64(*req.Move)))
	default:
		err = kv.Errorf(kv.Unsupported, "this member does not know the request; run one version on all members")
	}
	if err != nil {
		reply = peerReply{Code: kv.CodeOf(err), Error: err.Error(), Unknown: errors.Is(err, kv.ErrUnavailable)}
	}
	return json.Marshal(reply)
}

// onLeader runs here on the leader, or asks the leader to carry out req. Nothing
// was done when it returns ErrNoLeader.
func (n *Node) onLeader(ctx context.Context, req peerRequest, here func(context.Context) error) error {
	for {
		err := here(ctx)
		if !errors.Is(err, kv.ErrNotLeader) {
			return err
		}
		if addr := n.leaderAddr(); addr != "" {
			_, err = n.ask(ctx, addr, req)
			if err == nil || kv.CodeOf(err) != kv.FailedPrecondition || n.leaderAddr() == addr {
				return err
			}
		}
		// No leader is known, or another one by now.
		select {
		case <-ctx.Done():
			return kv.ErrNoLeader
		case <-n.done:
			return kv.ErrClosed
		case <-time.After(n.cfg.heartbeat):
		}
	}
}

// leaderAddr is where the leader listens for members; empty when there is none.
func (n *Node) leaderAddr() string {
	leader := kv.MemberID(n.replica.Status().Leader)
	if leader == 0 || n.transport == nil {
		return ""
	}
	for _, m := range n.machine.Members() {
		if m.ID == leader {
			return n.peerAddr(m)
		}
	}
	return ""
}

// peerAddr is where to reach a member first; empty when nobody knows.
func (n *Node) peerAddr(m kv.Member) string {
	if addrs := n.peerAddrs(m); len(addrs) > 0 {
		return addrs[0]
	}
	return ""
}

// peerAddrs are where to reach a member: as this member was told, as that one
// says of itself, and as the member list has it.
func (n *Node) peerAddrs(m kv.Member) []string {
	if n.cfg.hands.byHand {
		return m.PeerAddrs
	}
	addrs := slices.Clone(n.circle.addrs(m.ID))
	if told := n.cfg.peers[m.Name]; told != "" {
		addrs = append(addrs, told)
	}
	for _, addr := range m.PeerAddrs {
		if !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// others are the addresses at which to ask whoever is there: those of the list,
// or of all that were heard of.
func (n *Node) others() []string {
	addrs := n.circle.others()
	for name, addr := range n.cfg.peers {
		if name != n.cfg.name {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// change makes changes of membership, all at once or none, on whoever leads.
func (n *Node) change(ctx context.Context, changes ...machine.MemberChange) error {
	c := n.begin(ctx, observe.OpMember)
	err := n.changeMembers(ctx, changes)
	if c != nil {
		n.end(ctx, c, err)
	}
	return err
}

func (n *Node) changeMembers(ctx context.Context, changes []machine.MemberChange) error {
	if err := n.authorize(ctx, kv.ManageCluster); err != nil {
		return err
	}
	return n.onLeader(ctx, peerRequest{Change: changes, Caller: n.caller(ctx)}, func(ctx context.Context) error {
		return n.changeHere(ctx, changes)
	})
}

// changeHere makes changes as the leader, or returns ErrNotLeader.
func (n *Node) changeHere(ctx context.Context, changes []machine.MemberChange) error {
	return n.changeIn(ctx, 0, changes)
}

// changeIn is changeHere for one term only, unless that is 0.
func (n *Node) changeIn(ctx context.Context, term kv.Term, changes []machine.MemberChange) error {
	conf := replica.ConfChange{Term: uint64(term), Context: machine.AppendMembersCaller(machine.EncodeMembers(nil, changes...), n.caller(ctx))}
	for _, c := range changes {
		kind := replica.AddVoter
		switch {
		case c.Op == machine.RemoveMember:
			kind = replica.RemoveMember
		case c.Op == machine.AddMember && c.Member.Learner:
			kind = replica.AddLearner
		case c.Op != machine.AddMember && c.Op != machine.PromoteMember:
			return kv.Errorf(kv.InvalidArgument, "change of kind %d is no change of Raft's configuration", c.Op)
		}
		conf.Members = append(conf.Members, replica.MemberChange{Kind: kind, ID: uint64(c.Member.ID)})
	}
	result, err := n.replica.ProposeConfChange(ctx, conf)
	if err != nil {
		return mapError(err)
	}
	if err, ok := result.(error); ok {
		return err
	}
	return nil
}
