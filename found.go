package concord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/concord-kv/concord/internal/founding"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// found takes part in the founding of a cluster until there is one, and makes
// the state that it starts from. It may be interrupted and repeated at any
// point.
func (n *Node) found(ctx context.Context, id memberfile.File, h *peerHandler) (memberfile.File, error) {
	if n.cfg.rejoin {
		return n.join(ctx, id)
	}
	store := &foundingStore{node: n, file: id}
	cluster, err := n.agree(ctx, store, h)
	if place := (*founding.PlaceError)(nil); errors.As(err, &place) && n.cfg.hands.byHand && !n.cfg.hands.reserved {
		return id, err // Open takes the place
	}
	var founded *founding.FoundedError
	if errors.As(err, &founded) {
		if n.cfg.hands.byHand {
			return id, kv.Errorf(kv.FailedPrecondition, "%w", err)
		}
		n.log.Info("the others have founded a cluster already", "cluster", kv.ClusterID(founded.Cluster))
		return n.join(ctx, id, founded.Addrs...)
	}
	if err != nil {
		return id, err
	}
	id = store.file // with the record
	if err := n.makeFirstState(cluster); err != nil {
		return id, fmt.Errorf("make the first state: %w", err)
	}
	id.Cluster = cluster.Cluster
	if err := memberfile.Save(n.cfg.fs, n.cfg.dir, id); err != nil {
		return id, err
	}
	if n.transport != nil {
		n.transport.SetCluster(id.Cluster)
	}
	n.circle.belong(id.Cluster)
	n.log.Info("cluster founded", "cluster", kv.ClusterID(id.Cluster), "members", len(cluster.Members))
	return id, nil
}

// agree finds out what cluster there will be.
func (n *Node) agree(ctx context.Context, store *foundingStore, h *peerHandler) (*founding.Proposal, error) {
	record, err := foundingRecord(store.file)
	if err != nil {
		return nil, err
	}
	f, err := n.newFounder(store, record)
	if err != nil {
		return nil, err
	}
	h.founder.Store(f)
	f.Learn(n.circle.others()...)
	return f.Run(ctx)
}

// tellOfCluster lets processes that missed the founding, or lost their disk,
// learn from this member that there is a cluster. What it returns looks out for
// others of the same name.
func (n *Node) tellOfCluster(id memberfile.File, h *peerHandler) (watch func(context.Context) error, err error) {
	store := &foundingStore{node: n, file: id}
	record, err := foundingRecord(id)
	if err != nil {
		return nil, err
	}
	if record.Phase != founding.Founded {
		record = founding.MemberOf(id.Cluster, id.ID, id.Name)
	}
	f, err := n.newFounder(store, record)
	if err != nil {
		return nil, err
	}
	h.founder.Store(f)
	f.Learn(n.circle.others()...)
	return f.Watch, nil
}

func (n *Node) newFounder(store *foundingStore, record founding.Record) (*founding.Founder, error) {
	set := founding.Settings{Group: n.cfg.hands.group, Name: n.cfg.name, ClientAddrs: n.cfg.clientAddrs}
	if g := &n.cfg.group; g.name != "" {
		set.Group, set.Expect, set.Addrs = g.name, g.size, g.advertise
		set.Listen = g.listening
	} else {
		set.Peers = map[string][]string{n.cfg.name: nil}
		for name, addr := range n.cfg.peers {
			set.Peers[name] = []string{addr}
		}
	}
	return founding.New(founding.Config{
		Settings: set, Record: record, Caller: foundingCaller{n.transport}, Store: store, Logger: n.log,
	})
}

// makeFirstState writes the snapshot and log that every founder starts from.
// They are equal on all, and writing them again does no harm: nothing can have
// been added before member.json names the cluster.
func (n *Node) makeFirstState(p *founding.Proposal) error {
	members := make([]kv.Member, len(p.Members))
	voters := make([]uint64, len(p.Members))
	for i, m := range p.Members {
		members[i] = kv.Member{ID: kv.MemberID(m.ID), Name: m.Name, PeerAddrs: m.PeerAddrs, ClientAddrs: m.ClientAddrs}
		if m.Placeholder {
			members[i].Name = "" // until its process has come
		}
		voters[i] = m.ID
	}
	m := machine.New(machine.Options{})
	defer m.Close()
	m.Bootstrap(kv.ClusterID(p.Cluster), members)
	meta, err := replica.FirstSnapshot(p.Cluster, voters)
	if err != nil {
		return err
	}
	_, meta.Hash = m.Hash()
	write, release := m.Snapshot()
	defer release()
	snaps, err := snap.Open(n.cfg.fs, filepath.Join(n.cfg.dir, "snap"), snap.Options{})
	if err != nil {
		return err
	}
	if len(snaps.List()) == 0 {
		if _, err := snaps.Create(meta, func(w io.Writer) error { return write(w) }); err != nil {
			return err
		}
	}
	log, err := wal.Open(n.cfg.fs, filepath.Join(n.cfg.dir, "wal"), wal.Options{})
	if err != nil {
		return err
	}
	return errors.Join(log.Append(replica.FirstBatch()), log.Close())
}
