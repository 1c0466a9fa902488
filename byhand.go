package concord

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/kv"
)

// hands is what people do for the member that it else does by itself.
type hands struct {
	group      string
	byHand     bool
	reserved   bool
	compaction *Compaction
	// programLevel is what the program is made to understand, in tests.
	programLevel uint32
	// stray replaces the machine by one that goes wrong, in tests.
	stray func(replica.Machine) replica.Machine
}

// Group names the cluster that [Peers] found: processes that were started with
// another name are refused until there is a cluster. The default is empty.
func Group(name string) Option { return func(c *config) { c.hands.group = name } }

// ByHand leaves the membership to people. The member does not join a cluster
// that the others have founded without it, does not make itself a voter, ends
// when it has been removed, and once
// it has the member list it goes by the addresses there, not by those of
// [Peers].
func ByHand() Option { return func(c *config) { c.hands.byHand = true } }

// ErrRemoved ends a member that is none any more: it left, or was removed. Its
// directory is of use to people only. A member of a [Cluster] that is opened
// again renames it and joins as a new one.
var ErrRemoved = kv.Errorf(kv.FailedPrecondition, "this member was permanently removed from the cluster")

// errRemoved adds the next step to ErrRemoved.
var errRemoved = kv.Errorf(kv.FailedPrecondition, "%w; its directory is of no use any more: to come back, add it as a new member with an empty one", ErrRemoved)

// endWhenRemoved ends a member that has been removed. Whoever is removed may not
// hear it by the log, but is turned away by the others.
func (n *Node) endWhenRemoved(ctx context.Context) error {
	for n.cfg.hands.byHand || n.cfg.group.name != "" {
		switch {
		case !n.removed():
		case n.cfg.hands.byHand:
			return errRemoved
		default:
			if err := n.remember(func(f *memberfile.File) { f.Left = true }); err != nil {
				return err
			}
			return kv.Errorf(kv.FailedPrecondition, "%w; started again, it keeps this directory aside and joins as a new one", ErrRemoved)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(n.cfg.election):
		}
	}
	return nil
}

func (n *Node) removed() bool {
	return n.machine.Removed(n.id) || slices.ContainsFunc(n.transport.Peers(), func(p transport.PeerStatus) bool {
		refused := (*transport.RefusedError)(nil)
		return errors.As(p.Err, &refused) && refused.Reason == transport.Removed
	})
}

// Reserved makes a new member the one that AddMember has added for its peer
// address in [Peers], under the id that it got there. It asks the others of the
// list until one of them answers, and fails when they know of none, or of one
// that has been started before. It means ByHand, and has no effect on a member
// that has data.
func Reserved() Option {
	return func(c *config) { c.hands.byHand, c.hands.reserved = true, true }
}

// claim makes the member that AddMember has added for this one's peer address
// this one, and returns all members. The id is on disk before the others count
// it as taken, so a crash between the two can be repeated, and one whose disk is
// lost later cannot come back under it: its votes would be lost too.
func (n *Node) claim(ctx context.Context, id memberfile.File) (memberfile.File, []kv.Member, error) {
	for {
		n.transport = n.newTransport(id, nil, nil) // to ask only
		self := kv.Member{ID: kv.MemberID(id.ID), Name: n.cfg.name, PeerAddrs: []string{n.cfg.peers[n.cfg.name]}}
		reply, err := n.askAll(ctx, peerRequest{Claim: &self})
		n.transport = nil
		if err != nil {
			return id, nil, err
		}
		id.Cluster, id.Founding = uint64(reply.Cluster), nil
		if reply.Cluster == 0 {
			if len(reply.Members) != 1 || reply.Members[0].ID == 0 {
				return id, nil, kv.Errorf(kv.Internal, "the others answered with %d members when asked for the id that was added for %s; do they run the same version?", len(reply.Members), self.PeerAddrs[0])
			}
			id.ID = uint64(reply.Members[0].ID)
		}
		if err := memberfile.Save(n.cfg.fs, n.cfg.dir, id); err != nil || id.Cluster != 0 {
			return id, reply.Members, err
		}
	}
}

// askAll asks the listed members in turn until one has answered.
func (n *Node) askAll(ctx context.Context, req peerRequest) (reply peerReply, err error) {
	for {
		for _, addr := range n.others() {
			reply, err = n.ask(ctx, addr, req)
			switch kv.CodeOf(err) {
			case kv.FailedPrecondition, kv.InvalidArgument, kv.Unsupported:
				return reply, err
			}
			if err == nil {
				return reply, nil
			}
			n.log.Info("no answer yet", "address", addr, "error", err)
		}
		select {
		case <-ctx.Done():
			return reply, kv.Errorf(kv.Unavailable, "no other member answers: %w; last: %w", ctx.Err(), err)
		case <-time.After(n.cfg.election):
		}
	}
}

// grant answers a claim. A claimant that does not have the id yet is told it,
// without a cluster; one that has it is given the name, after which nobody else
// can claim it. Where there is no majority without the claimant, as there is not
// when a cluster of one has got its second voter, it has to do with what this
// member knows, and gives itself the name as soon as it has started.
func (n *Node) grant(ctx context.Context, m kv.Member) (peerReply, error) {
	holds := func(place kv.Member) bool { return place.ID == m.ID }
	agreed := false
	if slices.ContainsFunc(n.machine.Members(), holds) {
		agreeing, cancel := context.WithTimeout(ctx, min(2*n.cfg.election, answerTimeout/2))
		agreed = n.barrier(agreeing, kv.Strong) == nil
		cancel()
	}
	all := n.machine.Members()
	for _, place := range all {
		switch {
		case !n.sharesAddr(place, m):
			continue
		case holds(place) && place.Name == "" && agreed:
			if err := n.UpdateMember(ctx, kv.Member{ID: m.ID, Name: m.Name}); err != nil {
				return peerReply{}, err
			}
		case holds(place):
		case place.Name == "":
			return peerReply{Members: []kv.Member{place}}, nil
		default:
			return peerReply{}, kv.Errorf(kv.FailedPrecondition, "member %v has already been bootstrapped: it was started with another data directory; if that is lost, remove the member and add it again", place.ID)
		}
		return peerReply{Cluster: n.machine.Cluster(), Members: all}, nil
	}
	return peerReply{}, kv.Errorf(kv.FailedPrecondition, "no member was added for the peer address %q; add it first ('etcdctl member add')", m.PeerAddrs)
}

// meet connects this member with others.
func (n *Node) meet(members []kv.Member) {
	for _, m := range members {
		if addrs := n.peerAddrs(m); len(addrs) > 0 && m.ID != n.id {
			n.transport.SetPeer(uint64(m.ID), addrs...)
		}
	}
}

// introduce finds the others for a member that belongs to a cluster and has no
// state yet: it was ended before the first snapshot came.
func (n *Node) introduce(id memberfile.File) func(context.Context) error {
	return func(ctx context.Context) error {
		for len(n.machine.Members()) == 0 {
			for _, addr := range n.others() {
				if len(n.transport.Peers()) > 0 {
					break
				}
				if reply, err := n.ask(ctx, addr, peerRequest{Meet: true}); err == nil && uint64(reply.Cluster) == id.Cluster {
					n.meet(reply.Members)
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(n.cfg.election):
			}
		}
		return nil
	}
}
