package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/concord-kv/concord/internal/transport"
)

// loop owns the core: it steps what arrives and hands out what comes of it.
func (r *Replica) loop() error {
	ticker := time.NewTicker(r.cfg.Options.Tick)
	defer ticker.Stop()
	var inputs []Input
	for {
		r.core.Step(Input{Kind: InputTick, Now: r.cfg.Now()})
		inputs = r.inbox.take(inputs)
		for i := range inputs {
			inputs[i].Now = r.core.now
			r.core.Step(inputs[i])
		}
		r.gather()
		r.stepCalls()
		r.dispatch(r.core.Take())
		// What raft did may have made room for the next group.
		for r.stepCalls() {
			r.dispatch(r.core.Take())
		}
		select {
		case <-r.stopped():
			return nil
		case <-r.inbox.wake:
		case <-ticker.C:
		case q := <-r.inquiries:
			q <- r.core.Peers()
		}
	}
}

// gather lets callers who are about to call do so, while more and more come: a
// few larger entries cost less than many small ones. It yields the processor
// and never sleeps, so one caller alone loses nothing.
func (r *Replica) gather() {
	n := r.calls.openCount()
	if n == 0 || !r.core.Wants(n, 0) {
		return
	}
	for range 8 {
		runtime.Gosched()
		before := n
		if n = r.calls.openCount(); n == before {
			return
		}
	}
}

// stepCalls gives the core the calls that it wants.
func (r *Replica) stepCalls() (stepped bool) {
	for g := r.calls.takeLocal(); g != nil; g = r.calls.takeLocal() {
		r.core.Step(Input{Kind: InputPropose, Now: r.core.now, Group: g})
		stepped = true
	}
	if g := r.calls.take(r.core.Wants); g != nil {
		r.core.Step(Input{Kind: InputPropose, Now: r.core.now, Group: g})
		stepped = true
	}
	if id, ok := r.rounds.start(); ok {
		r.core.Step(Input{Kind: InputRead, Now: r.core.now, ID: id})
		stepped = true
	}
	return stepped
}

// dispatch hands out o. Its state comes first: a lease must have ended before
// the message that lets another one lead.
func (r *Replica) dispatch(o Output) {
	r.publish(o.State)
	for _, m := range o.Messages {
		if r.cfg.Transport != nil && r.cfg.Transport.Send(m.To, m.Channel, m.Payload) {
			continue
		}
		// The loss of a vote, heartbeat or read is made good by the next one.
		if m.Channel != transport.Control {
			r.inbox.put(Input{Kind: InputUnreachable, Peer: m.To})
		}
	}
	if len(o.Writes) > 0 {
		r.giveWrites(o.Writes)
	}
	if o.TruncateBefore != 0 {
		r.writes.put(logWork{truncate: o.TruncateBefore})
	}
	if len(o.Tasks) > 0 {
		r.giveTasks(o.Tasks)
	}
	for _, a := range o.Answers {
		r.answer(a)
	}
	if len(o.Finished) > 0 {
		r.calls.reuse(o.Finished)
	}
	for _, s := range o.Snapshots {
		r.spawn("send a snapshot", func() error { r.sendSnapshot(s); return nil })
	}
	for i, m := range o.Rejected {
		if i == 0 { // a peer must not fill the log
			r.cfg.Logger.Warn("dropped messages that make no sense", "from", m.From, "error", m.Err, "messages", len(o.Rejected))
		}
		if f := r.cfg.Observer.MessageRejected; f != nil {
			f(m.From, m.Err)
		}
	}
}

// giveWrites hands writes to the goroutine that writes the log.
func (r *Replica) giveWrites(writes []Write) {
	var now time.Time
	if r.calls.timed.Load() {
		now = time.Now()
	}
	for _, w := range writes {
		r.writes.put(logWork{write: w, given: now})
	}
}

// giveTasks hands tasks to the goroutine that applies.
func (r *Replica) giveTasks(tasks []Task) {
	var now time.Time
	if r.calls.timed.Load() {
		now = time.Now()
	}
	for _, t := range tasks {
		r.tasks.put(applyWork{t, now})
	}
}

func (r *Replica) answer(a Answer) {
	switch a.Kind {
	case AnswerGroup:
		r.calls.resolve(a.ID, nil, a.Err, stamps{})
	case AnswerConfChange:
		r.calls.resolveChange(a.ID, nil, a.Err)
	case AnswerRead:
		ws := r.rounds.end(a.ID)
		if a.Err == nil {
			r.progress.when(a.Index, ws...)
			return
		}
		for _, w := range ws {
			w.answer(nil, a.Err)
		}
	}
}

// publish lets everybody see s.
func (r *Replica) publish(s State) {
	old := r.state.Load()
	if *old == s {
		return
	}
	r.state.Store(&s)
	if old.Leaderless != s.Leaderless {
		var refuse error
		if s.Leaderless {
			refuse = ErrNoLeader
		}
		r.calls.setRefuse(refuse)
	}
	moved := old.Term != s.Term || old.Leader != s.Leader || old.Role != s.Role
	if moved {
		close(*r.changed.Swap(new(make(chan struct{}))))
		r.tellRole(old, &s)
	}
	if s.Leaderless && !old.Leaderless {
		r.cfg.Logger.Warn("no leader is known; writes and strong reads are refused until there is one", "term", s.Term)
	}
	if s.Stalled && !old.Stalled {
		r.cfg.Logger.Warn("the disk has not finished a write of the log for an election timeout; a leader gives leadership to another member", "role", s.Role.String())
	}
	if s.Slow != 0 && old.Slow == 0 {
		r.cfg.Logger.Warn("the disk is many times slower than that of another voter, which gets leadership", "write", s.Slow)
	}
	if moved || old.Leaderless != s.Leaderless || old.Stalled != s.Stalled {
		if f := r.cfg.Observer.StateChanged; f != nil {
			f(s)
		}
	}
}

// tellRole logs one line at info level for each leader, and the way there at
// debug level.
func (r *Replica) tellRole(old, s *State) {
	level, message := slog.LevelDebug, "role changed"
	if s.Leader != 0 && (s.Leader != old.Leader || s.Term != old.Term) {
		level, message = slog.LevelInfo, "leader elected"
	}
	r.cfg.Logger.Log(context.Background(), level, message,
		"leader", fmt.Sprintf("%x", s.Leader), "term", s.Term, "role", s.Role.String())
}

// Receive takes a message from a peer; payload is the replica's. It blocks while
// too much waits.
func (r *Replica) Receive(from uint64, ch Channel, payload []byte) {
	r.inbox.receive(from, payload, ch == transport.Control)
}

// PeerUp says that a peer is connected.
func (r *Replica) PeerUp(id uint64) { r.inbox.put(Input{Kind: InputPeerUp, Peer: id}) }

// PeerDown says that the connection with a peer closed.
func (r *Replica) PeerDown(id uint64) { r.inbox.put(Input{Kind: InputPeerDown, Peer: id}) }

// ReceiveStream takes a snapshot from a peer, which is on disk when it returns
// nil. One is taken at a time.
func (r *Replica) ReceiveStream(from uint64, header []byte, body io.Reader) error {
	if !r.snapshots.receiving.TryLock() {
		return errors.New("replica: another snapshot is being received")
	}
	defer r.snapshots.receiving.Unlock()
	return r.receiveSnapshot(from, header, body)
}

// logWork is a write, or room to make, and when it was given out if that was
// noted.
type logWork struct {
	write    Write
	truncate uint64
	given    time.Time
}

// writeLog makes writes durable. All that wait are written at once.
func (r *Replica) writeLog() error {
	var batches []Batch
	for {
		work := r.writes.take()
		for len(work) > 0 {
			batches = batches[:0]
			n, seq, entries := 0, uint64(0), 0
			for n < len(work) && work[n].truncate == 0 {
				w := work[n].write
				batches = append(batches, w.Batch)
				seq, entries = w.Seq, entries+len(w.Batch.Entries)
				n++
			}
			if n > 0 {
				began := time.Now()
				if err := r.appendLog(batches); err != nil {
					return err
				}
				took := time.Since(began)
				r.cfg.Times.durable.add(work[:n], began.Add(took))
				if f := r.cfg.Observer.LogWritten; f != nil {
					f(entries, took)
				}
				r.inbox.put(Input{Kind: InputWritten, Seq: seq})
			} else {
				if err := r.cfg.Log.TruncateBefore(work[0].truncate); err != nil {
					return err
				}
				n = 1
			}
			work = work[n:]
		}
		select {
		case <-r.stopped():
			return nil
		case <-r.writes.wake:
		}
	}
}
