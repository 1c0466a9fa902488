package sim

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/kv"
)

// clusterID is that of every simulated cluster.
const clusterID = 0xc1

// found makes the founding members: each writes the same first snapshot and
// an empty log behind it, and starts.
func (w *world) found() {
	w.modelled = 1
	w.conf = &raftpb.ConfState{}
	var members []kv.Member
	for range w.opt.nodes {
		n := w.addNode()
		w.conf.Voters = append(w.conf.Voters, n.id)
		members = append(members, member(n, false))
	}
	m := machine.New(machine.Options{})
	defer m.Close()
	m.Bootstrap(clusterID, members)
	for _, n := range w.nodes {
		if err := n.bootstrap(m); err != nil {
			panic(fmt.Sprintf("sim: founding: %v", err))
		}
	}
	first := slot{1, 1}
	w.ledger.filled(0, first, content{})
	w.ledger.commits(0, first)
	for _, n := range w.nodes {
		w.loop.after(w.rnd.between(0, w.opt.election), n.start)
	}
}

// addNode makes a node with a new identity and an empty disk.
func (w *world) addNode() *node {
	n := &node{w: w, slot: len(w.nodes), id: w.rnd.Uint64()>>1 | 1, base: w.rnd.Int64N(int64(time.Hour))}
	n.rate = 1 + w.opt.skew*(2*w.rnd.Float64()-1)
	n.disk = newDisk(n)
	n.logs.conf = &raftpb.ConfState{}
	w.nodes = append(w.nodes, n)
	return n
}

func member(n *node, learner bool) kv.Member {
	return kv.Member{ID: kv.MemberID(n.id), Name: n.label(), PeerAddrs: []string{n.label() + ":2380"}, Learner: learner}
}

// bootstrap writes what a founder's disk has before its first start.
func (n *node) bootstrap(m *machine.Machine) error {
	conf, err := proto.Marshal(n.w.conf)
	if err != nil {
		return err
	}
	p, err := n.open()
	if err != nil {
		return err
	}
	defer p.abandon()
	_, hash := m.Hash()
	write, release := m.Snapshot()
	defer release()
	_, err = p.snaps.Create(snap.Meta{Index: 1, Term: 1, ConfState: conf, Cluster: clusterID, Hash: hash}, write)
	first := replica.Batch{State: replica.HardState{Term: 1, Commit: 1}, Mark: replica.Mark{Index: 1, Term: 1}, Reset: true}
	return errors.Join(err, p.log.Append(first))
}

// replicaOptions are those of every member of the run.
func (w *world) replicaOptions() replica.Options {
	l := &w.opt.limits
	return replica.Options{
		Heartbeat:       w.opt.election / 10,
		Election:        w.opt.election,
		Tick:            w.opt.tick,
		ReadLease:       l.leaderReads,
		MaxMessageBytes: l.messageBytes,
		SnapshotBytes:   l.snapshotBytes,
		LogBytes:        l.logBytes,
		CacheBytes:      l.cacheBytes,
		MaxEntryBytes:   l.entryBytes,
		SnapshotTimeout: 10 * w.opt.election,
	}
}

// applyTime draws how long a task takes.
func (w *world) applyTime(entries int) time.Duration {
	if w.opt.apply == 0 {
		return 0
	}
	return w.rnd.exp(w.opt.apply * time.Duration(1+entries))
}

// deliver hands a message to a node.
func (w *world) deliver(r route, payload []byte) {
	n, sender := w.nodes[r.to], w.nodes[r.from].id
	n.do(n.life, func() {
		n.hear(sender)
		n.proc.step(replica.Input{Kind: replica.InputMessage, Peer: sender, Payload: payload})
	})
}

// peerDown tells a node that its connection with a peer broke; a while later
// there is a new one, if the peer is there.
func (w *world) peerDown(at, peer int) {
	if at >= len(w.nodes) || peer >= len(w.nodes) {
		return
	}
	n, id := w.nodes[at], w.nodes[peer].id
	life := n.life
	n.do(life, func() { n.proc.step(replica.Input{Kind: replica.InputPeerDown, Peer: id}) })
	w.loop.after(w.opt.election/50, func() {
		if w.nodes[peer].up() && w.net.cuts[at][peer] == cutNone {
			n.do(life, func() { n.proc.step(replica.Input{Kind: replica.InputPeerUp, Peer: id}) })
		}
	})
}

// release gives memory outside of the Go heap back.
func (w *world) release() {
	w.closing = true
	for _, x := range w.people.watchers {
		x.detach()
	}
	for _, n := range w.nodes {
		if n.up() {
			n.proc.abandon()
			n.proc = nil
		}
	}
}
