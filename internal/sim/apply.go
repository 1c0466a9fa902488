package sim

import (
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
)

// applies is the goroutine that applies, and the one that writes snapshots.
type applies struct {
	queue   []*replica.Task
	busy    bool
	applied uint64 // done, and told to the core

	// release lets go of the state that a snapshot under way has pinned.
	release func()
}

// boot restores the machine from the newest snapshot that the log follows on,
// and makes the core.
func (p *process) boot() error {
	var info replica.SnapshotInfo
	for _, m := range p.snaps.List() {
		term, err := p.log.Term(m.Index)
		if m.Index > p.log.LastIndex() || p.log.FirstIndex() > m.Index+1 || err != nil || term != m.Term {
			continue
		}
		if err := p.restore(m.Index); err != nil {
			var corrupt *snap.CorruptError
			if errors.As(err, &corrupt) {
				continue // there is an older one, and the log since
			}
			return err
		}
		info = p.info(m)
		break
	}
	if info.Index == 0 && (p.log.LastIndex() > 0 || p.log.State().Commit > 0) {
		return fmt.Errorf("no snapshot that the log %d-%d follows on", p.log.FirstIndex(), p.log.LastIndex())
	}
	n := p.n
	p.restored, p.applies.applied = info.Index, info.Index
	incarnation := n.w.rnd.Uint64()
	p.applier = replica.NewApplier(p.spy, n.id, incarnation, info)
	core, err := replica.NewCore(replica.CoreConfig{
		ID: n.id, Incarnation: incarnation, Seed: n.w.rnd.Uint64(), Now: n.now(),
		Snapshot: info, Log: p.log, Options: n.w.replicaOptions(),
	})
	p.core = core
	if n.logs.conf = info.ConfState; info.ConfState == nil {
		n.logs.conf = &raftpb.ConfState{}
	}
	return err
}

// restore makes the machine what a snapshot on disk says.
func (p *process) restore(index uint64) error {
	r, err := p.snaps.Open(index)
	if err != nil {
		return err
	}
	err = p.spy.Restore(r)
	return errors.Join(err, r.Close())
}

// apply starts the next task. A task takes its time and then happens at once.
func (p *process) apply() {
	a := &p.applies
	if a.busy || len(a.queue) == 0 || p.failed != nil {
		return
	}
	a.busy = true
	p.after(p.n.w.applyTime(len(a.queue[0].Entries)), func() {
		task := a.queue[0]
		a.queue = a.queue[1:]
		a.busy = false
		var done replica.Applied
		p.guard(func() {
			var err error
			if done, err = p.run(task); err != nil {
				p.failed = err
			}
		})
		if p.failed != nil {
			return
		}
		a.applied = max(a.applied, done.Index)
		if p.n.w.rnd.is(0.5) {
			p.machine.Maintain()
		}
		p.step(replica.Input{Kind: replica.InputApplied, Applied: &done})
		p.serve()
		p.n.w.wakeWatchers(p.n)
		p.n.w.wakeOnlookers(p.n)
		p.apply()
	})
}

func (p *process) run(t *replica.Task) (replica.Applied, error) {
	switch {
	case t.Install.Index != 0:
		p.n.w.tell("%s becomes snapshot %d", p.n, t.Install.Index)
		if err := p.restore(t.Install.Index); err != nil {
			return replica.Applied{}, fmt.Errorf("restore snapshot %d: %w", t.Install.Index, err)
		}
		p.applier.Reset(t.Install)
		p.n.logs.conf = t.Install.ConfState
		return replica.Applied{Index: t.Install.Index}, nil
	case t.Take != nil:
		return replica.Applied{}, p.takeSnapshot(t)
	}
	done, err := p.applier.Apply(*t, p.resolve)
	if last := t.Entries[len(t.Entries)-1]; err == nil {
		if done.Changed {
			p.n.changed(last)
		}
	}
	return done, err
}

// takeSnapshot pins the state now and writes it later, while others apply.
func (p *process) takeSnapshot(t *replica.Task) error {
	info := p.applier.Snapshot()
	info.ConfState = t.Take
	if list := p.snaps.List(); len(list) > 0 && list[0].Index == info.Index {
		p.after(0, func() { p.step(replica.Input{Kind: replica.InputSnapshotCreated}) })
		return nil
	}
	conf, err := proto.Marshal(t.Take)
	if err != nil {
		return err
	}
	_, hash := p.machine.Hash()
	write, release := p.spy.Snapshot()
	p.applies.release = release
	p.after(5*p.n.disk.latency(), func() {
		p.applies.release = nil
		meta, err := p.create(snap.Meta{Index: info.Index, Term: info.Term, ConfState: conf, Cluster: clusterID, Time: info.Time, Hash: hash}, write)
		release()
		if err != nil {
			p.n.w.tell("%s: snapshot %d failed: %v", p.n, info.Index, err)
			p.diskError(err)
			p.step(replica.Input{Kind: replica.InputSnapshotCreated})
			return
		}
		p.n.w.tell("%s took snapshot %d", p.n, meta.Index)
		p.n.w.tally.snapshots++
		info.Size = meta.Size
		p.step(replica.Input{Kind: replica.InputSnapshotCreated, Snapshot: info, Index: p.oldest()})
	})
	return nil
}

func (p *process) create(m snap.Meta, write func(io.Writer) error) (snap.Meta, error) {
	meta, err := p.snaps.Create(m, write)
	if err != nil {
		return meta, err
	}
	return meta, p.snaps.Retain(2)
}

// oldest is the index of the oldest snapshot kept.
func (p *process) oldest() uint64 {
	list := p.snaps.List()
	return list[len(list)-1].Index
}
