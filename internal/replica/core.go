package replica

import (
	"errors"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/transport"
)

// CoreConfig configures a [Core].
type CoreConfig struct {
	// ID is this member's; not 0.
	ID uint64
	// Incarnation is a random number for the life of the process: it tells
	// groups and reads of one life from those of another.
	Incarnation uint64
	// Seed of the small jitters that are the core's own.
	Seed uint64
	// Now is the time of the start, as in Input.Now.
	Now int64
	// Snapshot is what the machine was restored from; the zero value for a
	// member that joins and has no state yet.
	Snapshot SnapshotInfo
	// Log goes on after Snapshot: its entries start at the one behind it, or
	// before.
	Log     LogReader
	Options Options
	// Logger gets raft's messages at debug level; nil for none.
	Logger *slog.Logger
}

// Core is the deterministic part of a replica: Step gives it what happened, Take
// says what to do. It is not safe for concurrent use. It panics when an
// invariant is broken, when raft does, and when LogReader fails: the member
// must end then.
type Core struct {
	identity
	clock
	opt     Options
	node    *raft.RawNode
	storage *storage
	state   State
	out     Output

	conf   config
	disk   disk
	tasks  tasks
	queue  queue
	intake intake
	pace   pace
	reads  reads
	lease  lease
	elect  elect
}

// identity is who this member is, in this life.
type identity struct{ id, incarnation uint64 }

// clock is the time of the last input, and of raft's last tick.
type clock struct {
	now, ticked int64
	contacts    contacts
}

// NewCore returns the core of a member that starts from the snapshot and log in
// cfg. It does nothing before the first Step.
func NewCore(cfg CoreConfig) (*Core, error) {
	opt, err := cfg.Options.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.ID == raft.None || raft.IsLocalMsgTarget(cfg.ID) {
		return nil, errors.New("replica: the member id is 0 or reserved")
	}
	c := &Core{identity: identity{cfg.ID, cfg.Incarnation}, clock: clock{now: cfg.Now, ticked: cfg.Now}, opt: opt}
	if c.storage, err = newStorage(cfg.Log, cfg.Snapshot, opt.CacheBytes); err != nil {
		return nil, err
	}
	c.storage.missing = c.conf.hasMore
	hs, conf, err := c.storage.InitialState()
	if err != nil {
		return nil, err
	}
	c.node, err = raft.NewRawNode(&raft.Config{
		ID:            cfg.ID,
		ElectionTick:  int(opt.Election / opt.Tick),
		HeartbeatTick: int(opt.Heartbeat / opt.Tick),
		Storage:       c.storage,
		Applied:       cfg.Snapshot.Index,

		AsyncStorageWrites: true,
		PreVote:            true,
		CheckQuorum:        true,
		StepDownOnRemoval:  true,
		// Groups are forwarded by this package, once and bound to a term.
		DisableProposalForwarding: true,
		ReadOnlyOption:            raft.ReadOnlySafe,

		MaxSizePerMsg:             uint64(opt.MaxMessageBytes),
		MaxInflightMsgs:           256,
		MaxInflightBytes:          uint64(opt.MaxInflightBytes),
		MaxUncommittedEntriesSize: uint64(max(8*opt.MaxEntryBytes, 2*opt.MaxCommandBytes)),
		MaxCommittedSizePerReady:  uint64(16 * opt.MaxMessageBytes),

		Logger: raftLogger{cfg.Logger},
	})
	if err != nil {
		return nil, err
	}
	c.conf.set(conf)
	c.conf.ownFirst = notLeading
	c.disk.state = HardState{Term: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit()}
	c.disk.last = c.storage.last
	c.state = State{Term: hs.GetTerm(), Commit: hs.GetCommit(), Applied: cfg.Snapshot.Index}
	c.tasks.snapshotSize, c.tasks.oldest = cfg.Snapshot.Size, cfg.Snapshot.Index
	if c.pace.stamp, err = c.lastStamp(); err != nil {
		return nil, err
	}
	c.startElections(cfg.Seed)
	return c, nil
}

// Step gives the core one input.
func (c *Core) Step(in Input) {
	c.advance(in.Now)
	switch in.Kind {
	case InputTick:
	case InputMessage:
		if err := c.receive(in.Peer, in.Payload); err != nil {
			c.out.Rejected = append(c.out.Rejected, Rejected{in.Peer, err})
		}
	case InputPropose:
		c.enqueue(in.Group)
	case InputWritten:
		c.written(in.Seq)
	case InputApplied:
		c.applied(in.Applied)
	case InputRead:
		c.reads.start(in.ID)
	case InputConfChange:
		c.requestChange(in.ID, in.Change)
	case InputTransfer:
		c.transfer(in.Peer)
	case InputPeerUp:
		c.peerUp(in.Peer)
	case InputPeerDown:
		c.peerDown(in.Peer)
	case InputUnreachable:
		c.unreachable(in.Peer)
	case InputTime:
		c.pace.advance(c.now, in.Time)
	default:
		c.stepSnapshot(in)
	}
}

// Take returns what is to be done since the last Take.
func (c *Core) Take() Output {
	c.offerSnapshot()
	c.observe()
	for {
		c.propose()
		c.forward()
		c.proposeChange()
		c.startRead()
		if !c.node.HasReady() {
			break
		}
		c.ready(c.node.Ready())
	}
	c.giveTasks()
	c.updateLease()
	c.updateLeadership()
	out := c.out
	out.State = c.state
	c.out = Output{}
	return out
}

// advance moves time. raft counts ticks; after a pause of the process it gets
// only as many as a heartbeat has, so that what has arrived meanwhile is seen
// before anybody campaigns.
func (c *Core) advance(now int64) {
	c.now = max(c.now, now)
	tick := int64(c.opt.Tick)
	if late := c.now - c.ticked - int64(c.opt.Heartbeat); late > tick {
		c.ticked += late / tick * tick
		c.contacts.skipped += late / tick * tick
	}
	for c.ticked+tick <= c.now {
		c.ticked += tick
		if !c.replaying() || c.state.Role == Leader { // else raft might campaign, see replayTo
			c.node.Tick()
		}
	}
	c.watchDisk()
	c.checkLeaderless()
	c.checkForwards()
	c.checkRead()
	c.checkSnapshots()
	c.checkCampaign()
}

// ready takes over what raft wants done.
func (c *Core) ready(rd raft.Ready) {
	c.observe()
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			c.write(m)
		case raft.LocalApplyThread:
			c.tasks.add(m.GetEntries())
		default:
			c.send(m)
		}
	}
	for _, rs := range rd.ReadStates {
		c.readState(rs)
	}
	c.pace.committed(c.state.Commit)
	c.intake.changeProposed(c)
	c.observeCaught()
}

// observe notices what changed in raft.
func (c *Core) observe() {
	s := c.node.BasicStatus()
	old := c.state
	c.state.Term, c.state.Leader, c.state.Commit = s.GetTerm(), s.Lead, s.GetCommit()
	if c.state.Commit < old.Commit || c.state.Term < old.Term {
		panic("replica: the term or the commit index fell")
	}
	c.state.Role = [...]Role{Follower, Candidate, Leader, PreCandidate}[s.RaftState]
	c.conf.transferring = s.LeadTransferee != raft.None
	if c.state.Term != old.Term || c.state.Leader != old.Leader || c.state.Role != old.Role {
		c.leaderChanged(old)
	}
}

// leaderChanged is called when term, leader or role are not what they were.
func (c *Core) leaderChanged(old State) {
	if c.state.Leader != raft.None {
		c.elect.campaignAt, c.elect.attempts = 0, 0
		c.state.Leaderless = false
	} else if old.Leader != raft.None {
		c.elect.leaderlessSince = c.now
	}
	c.reads.sent = false // a fresh id under the new leader
	if c.state.Term == old.Term && c.state.Role == old.Role {
		return
	}
	c.intake.failChange(c, ErrNotLeader)
	c.intake = intake{}
	c.pace.clear()
	c.lease.clear()
	c.state.Caught, c.state.Slow = false, 0
	c.contacts.began = c.awake()
	c.disk.race.leads(c.now)
	c.conf.ownFirst = notLeading
	if c.state.Role == Leader {
		c.conf.pending = c.disk.last
		c.lead()
	}
}

// observeCaught notices the first commit of this leader's own term: raft answers
// reads before it when it is the only voter, and must not (raft PR 105).
func (c *Core) observeCaught() {
	if c.state.Role == Leader && c.state.Commit >= c.conf.ownFirst && !c.state.Caught {
		c.state.Caught = true
		for _, m := range c.reads.held {
			_ = c.node.Step(m)
		}
		c.reads.held = nil
	}
}

// updateLeadership publishes what the leader's duties need: since when it has
// applied an entry of its own term, and how cluster time goes on.
func (c *Core) updateLeadership() {
	if c.state.Role != Leader || c.state.Applied < c.conf.ownFirst {
		c.state.LeaderSince = 0
	} else if c.state.LeaderSince == 0 {
		c.state.LeaderSince = max(c.now, 1)
	}
	c.state.stamp, c.state.offset, c.state.conf = c.pace.stamp, c.pace.base*1e6-c.pace.since, c.conf.state
}

// isLeader reports whether this member leads now, which c.state may not know
// yet.
func (c *Core) isLeader() bool { return c.state.Role == Leader }

// receive handles a message from a peer.
func (c *Core) receive(from uint64, payload []byte) error {
	w, err := parseWire(payload)
	if err != nil {
		return err
	}
	c.hear(from)
	switch w.kind {
	case wireRaft, wireHeartbeat, wireHeartbeatResp:
		return c.receiveRaft(from, w)
	case wireForward:
		return c.receiveForward(from, w)
	case wireForwarded:
		return c.receiveForwarded(from, w)
	case wireChange:
		return c.receiveChange(from, w)
	case wireRefused:
		return c.receiveRefused(w)
	default: // wireTransfer
		if c.isLeader() && w.f[0] == c.state.Term {
			c.transfer(w.f[1])
		}
		return nil
	}
}

// send encodes a message of raft's.
func (c *Core) send(m *raftpb.Message) {
	ch, head := transport.Control, wire{kind: wireRaft}
	switch m.GetType() {
	case raftpb.MsgSnap:
		c.sendSnapshot(m)
		return
	case raftpb.MsgApp, raftpb.MsgAppResp:
		ch = transport.Append
	case raftpb.MsgHeartbeat:
		head = c.lease.heartbeat(c, m)
	case raftpb.MsgHeartbeatResp:
		head = c.lease.response(c, m)
	}
	c.out.Messages = append(c.out.Messages, Message{m.GetTo(), ch, encodeRaft(head, m)})
}

// sendWire sends a message of our own.
func (c *Core) sendWire(to uint64, ch Channel, w wire) {
	payload := w.append(make([]byte, 0, 48+len(w.rest)))
	c.out.Messages = append(c.out.Messages, Message{to, ch, payload})
}

func (c *Core) unreachable(peer uint64) {
	c.node.ReportUnreachable(peer)
	if peer == c.state.Leader {
		c.queue.resendAt = min(c.queue.resendAt, c.now+int64(c.opt.Tick))
	}
}
