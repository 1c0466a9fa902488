package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/wal"
)

// appendLog writes to the log. A full disk is waited out: nothing was written
// then, and the core gives up leadership meanwhile. Any other error is the end.
func (r *Replica) appendLog(batches []Batch) error {
	err := r.cfg.Log.Append(batches...)
	for errors.Is(err, wal.ErrNoSpace) {
		r.cfg.Logger.Error("the disk of the log is full", "error", err)
		select {
		case <-r.stopped():
			return err
		case <-time.After(r.cfg.Options.Election):
		}
		err = r.cfg.Log.Append(batches...)
	}
	return err
}

// apply runs tasks. When there are none it lets the machine do its upkeep.
func (r *Replica) apply() error {
	more := true
	for {
		for _, work := range r.tasks.take() {
			t, began := work.task, time.Now()
			done, err := r.runTask(work)
			if err != nil {
				return err
			}
			r.progress.set(done.Index)
			r.inbox.put(Input{Kind: InputApplied, Applied: &done})
			if f := r.cfg.Observer.EntriesApplied; f != nil && len(t.Entries) > 0 {
				f(len(t.Entries), time.Since(began))
			}
			more = r.cfg.Machine.Maintain()
			if r.running.ctx.Err() != nil {
				return nil
			}
		}
		if more {
			select {
			case <-r.stopped():
				return nil
			case <-r.tasks.wake:
			default:
				more = r.cfg.Machine.Maintain()
			}
			continue
		}
		select {
		case <-r.stopped():
			return nil
		case <-r.tasks.wake:
		}
	}
}

// applyWork is a task, and when it was given out if that was noted.
type applyWork struct {
	task  Task
	given time.Time
}

func (r *Replica) runTask(work applyWork) (Applied, error) {
	t := work.task
	switch {
	case t.Install.Index != 0:
		began := time.Now()
		if err := restore(r.cfg, t.Install.Index); err != nil {
			return Applied{}, fmt.Errorf("install snapshot %d: %w", t.Install.Index, err)
		}
		if f := r.cfg.Observer.SnapshotInstalled; f != nil {
			f(t.Install, time.Since(began))
		}
		r.applier.Reset(t.Install)
		return Applied{Index: t.Install.Index}, nil
	case t.Take != nil:
		r.takeSnapshot(t.Take)
		return Applied{Index: r.applier.index}, nil
	}
	r.cfg.Times.given = work.given
	return r.applier.Apply(t, func(res Result) {
		if res.Change {
			r.calls.resolveChange(res.Seq, res.Values[0], nil)
		} else {
			r.calls.resolve(res.Seq, res.Values, nil, r.stamps(work.given, res.Index))
		}
	})
}

// stamps are when the entry at index, of a task given out then, had got how far:
// zero when nobody takes the time.
func (r *Replica) stamps(given time.Time, index uint64) stamps {
	if given.IsZero() {
		return stamps{}
	}
	_, logged := r.cfg.Times.durable.since(index)
	return stamps{logged: logged, committed: given, applied: time.Now()}
}

// restoreNewest gives the machine the newest snapshot that the log follows on
// and that can be read. One that was received but not yet taken up does not
// count; one that is damaged gives way to the one before.
func restoreNewest(cfg Config) (SnapshotInfo, error) {
	first, last := cfg.Log.FirstIndex(), cfg.Log.LastIndex()
	var failed error
	for _, m := range cfg.Snapshots.List() {
		if m.Index > last || m.Index+1 < first {
			continue
		}
		info, err := snapshotInfo(m)
		if err == nil {
			err = restore(cfg, m.Index)
		}
		if err == nil {
			return info, nil
		}
		cfg.Logger.Error("snapshot cannot be used", "index", m.Index, "error", err)
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return SnapshotInfo{}, fmt.Errorf("replica: no snapshot can be used: %w", failed)
	}
	if first > 1 || last > 0 {
		return SnapshotInfo{}, fmt.Errorf("replica: the log has entries %d to %d, and no snapshot that they follow on", first, last)
	}
	return SnapshotInfo{}, nil
}

func restore(cfg Config, index uint64) error {
	rd, err := cfg.Snapshots.Open(index)
	if err != nil {
		return err
	}
	return errors.Join(cfg.Machine.Restore(rd), rd.Close())
}

func snapshotInfo(m SnapshotMeta) (SnapshotInfo, error) {
	conf := &raftpb.ConfState{}
	if err := proto.Unmarshal(m.ConfState, conf); err != nil {
		return SnapshotInfo{}, fmt.Errorf("replica: configuration in snapshot %d: %w", m.Index, err)
	}
	if err := checkConfState(conf); err != nil {
		return SnapshotInfo{}, fmt.Errorf("replica: configuration in snapshot %d: %w", m.Index, err)
	}
	return SnapshotInfo{Index: m.Index, Term: m.Term, ConfState: conf, Time: m.Time, Size: m.Size}, nil
}

// snapshotCalls are the calls that wait for a snapshot to be taken.
type snapshotCalls struct {
	receiving sync.Mutex

	mu  sync.Mutex
	ws  []*waiter // for the next one to begin
	err error
}

// begin returns those who wait for the snapshot that begins now.
func (s *snapshotCalls) begin() []*waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	ws := s.ws
	s.ws = nil
	return ws
}

func (s *snapshotCalls) close(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	for _, w := range s.begin() {
		w.answer(nil, err)
	}
}

// Snapshot takes a snapshot now and returns when it is durable and verified. It
// returns the newest one if nothing was applied since.
func (r *Replica) Snapshot(ctx context.Context) (SnapshotMeta, error) {
	w := r.pool.get()
	r.snapshots.mu.Lock()
	err := r.snapshots.err
	if err == nil {
		r.snapshots.ws = append(r.snapshots.ws, w)
	}
	r.snapshots.mu.Unlock()
	if err != nil {
		w.free()
		return SnapshotMeta{}, err
	}
	r.inbox.put(Input{Kind: InputTakeSnapshot})
	v, err := w.wait(ctx)
	m, _ := v.(SnapshotMeta)
	return m, err
}

// takeSnapshot pins the state and writes it in the background.
func (r *Replica) takeSnapshot(conf *raftpb.ConfState) {
	info := r.applier.Snapshot()
	info.ConfState = conf
	ws := r.snapshots.begin()
	if list := r.cfg.Snapshots.List(); len(list) > 0 && list[0].Index == info.Index {
		r.inbox.put(Input{Kind: InputSnapshotCreated})
		for _, w := range ws {
			w.answer(list[0], nil)
		}
		return
	}
	_, hash := r.cfg.Machine.Hash()
	write, release := r.cfg.Machine.Snapshot()
	r.spawn("take a snapshot", func() error {
		defer release()
		began := time.Now()
		m, oldest, err := r.createSnapshot(info, hash, write)
		if err == nil {
			info.Size = m.Size
		} else {
			r.cfg.Logger.Error("taking a snapshot failed", "index", info.Index, "error", err)
			info = SnapshotInfo{}
		}
		if f := r.cfg.Observer.SnapshotTaken; f != nil {
			f(m, time.Since(began), err)
		}
		r.inbox.put(Input{Kind: InputSnapshotCreated, Snapshot: info, Index: oldest})
		for _, w := range ws {
			w.answer(m, err)
		}
		return nil
	})
}

// createSnapshot also drops all snapshots but two, and returns the index of the
// older one.
func (r *Replica) createSnapshot(info SnapshotInfo, hash uint64, write func(io.Writer) error) (m SnapshotMeta, oldest uint64, err error) {
	conf, err := proto.Marshal(info.ConfState)
	if err != nil {
		return m, 0, err
	}
	m = SnapshotMeta{Index: info.Index, Term: info.Term, ConfState: conf, Cluster: r.cfg.Cluster, Time: info.Time, Hash: hash}
	m, err = r.cfg.Snapshots.Create(m, func(w io.Writer) error { return write(untilStopped{w, r.running.ctx}) })
	if err != nil {
		return m, 0, err
	}
	// Newer ones were received and not taken up yet; they do not count.
	newer := slices.IndexFunc(r.cfg.Snapshots.List(), func(o SnapshotMeta) bool { return o.Index == m.Index })
	if err := r.cfg.Snapshots.Retain(max(newer, 0) + 2); err != nil {
		r.cfg.Logger.Warn("dropping old snapshots failed", "error", err)
	}
	list := r.cfg.Snapshots.List()
	return m, list[len(list)-1].Index, nil
}

// untilStopped makes writing fail when the replica ends.
type untilStopped struct {
	w   io.Writer
	ctx context.Context
}

// Write implements io.Writer.
func (u untilStopped) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

// sendSnapshot streams a snapshot to a peer, and tells the core how it went.
func (r *Replica) sendSnapshot(s SnapshotSend) {
	ctx, cancel := context.WithTimeout(r.running.ctx, r.cfg.Options.SnapshotTimeout)
	defer cancel()
	began, err := time.Now(), errors.New("replica: no transport")
	if r.cfg.Transport != nil {
		err = r.cfg.Transport.SendStream(ctx, s.To, s.Header, func(w io.Writer) error {
			buffered := bufio.NewWriterSize(w, 256<<10)
			return errors.Join(r.cfg.Snapshots.SendTo(s.Index, buffered), buffered.Flush())
		})
	}
	if err != nil {
		r.cfg.Logger.Warn("sending a snapshot failed", "to", s.To, "index", s.Index, "error", err)
	}
	if f := r.cfg.Observer.SnapshotSent; f != nil {
		f(s.To, s.Index, time.Since(began), err)
	}
	r.inbox.put(Input{Kind: InputSnapshotSent, Peer: s.To, OK: err == nil})
}

// receiveSnapshot makes a peer's snapshot durable before the core hears of it.
func (r *Replica) receiveSnapshot(from uint64, header []byte, body io.Reader) error {
	m, err := r.cfg.Snapshots.Receive(body)
	if err == nil { // the sender counts on all of it having been read, its end too
		_, err = io.Copy(io.Discard, body)
	}
	if err != nil {
		return err
	}
	if m.Cluster != r.cfg.Cluster {
		return fmt.Errorf("replica: the snapshot is of cluster %x, not %x", m.Cluster, r.cfg.Cluster)
	}
	info, err := snapshotInfo(m)
	if err != nil {
		return err
	}
	r.inbox.put(Input{Kind: InputSnapshotReceived, Peer: from, Payload: header, Snapshot: info})
	return nil
}
