package replica

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/transport"
)

// intake is what a leader has been forwarded and not yet proposed. It lives for
// one term of its own.
type intake struct {
	streams map[streamKey]uint64 // next number expected
	groups  []groupRef
	count   int
	bytes   int64
	change  *pendingChange // to propose
}

type streamKey struct{ origin, incarnation uint64 }

// maxStreams bounds the lives of members that a leader hears from in its term.
const maxStreams = 4096

// receiveForward takes a group from a follower, each once and in order.
func (c *Core) receiveForward(from uint64, w wire) error {
	term, stream, count := w.f[0], w.f[2], w.f[4]
	if !c.isLeader() || term != c.state.Term {
		return nil // the sender will learn that the term is over
	}
	key := streamKey{from, w.f[1]}
	next := max(c.intake.streams[key], 1)
	switch {
	case stream == next && count > 0:
		g := groupRef{origin: from, incarnation: w.f[1], seq: w.f[3], count: int(min(count, math.MaxInt32)), data: w.rest}
		if err := checkGroup(g, c.opt.MaxCommandBytes); err != nil {
			return err
		}
		if c.intake.bytes > 0 && c.intake.bytes+int64(len(g.data)) > 64*int64(c.opt.MaxEntryBytes) || len(c.intake.streams) >= maxStreams && next == 1 {
			return nil // it asks again
		}
		c.intake.expect(key, next+1)
		c.intake.groups = append(c.intake.groups, g)
		c.intake.count += g.count
		c.intake.bytes += int64(len(g.data))
		return nil
	case stream >= next && count == 0: // the sender has given up all until there
		if _, known := c.intake.streams[key]; known || len(c.intake.streams) < maxStreams {
			c.intake.expect(key, stream+1)
		}
		return nil
	case stream >= next || stream == 0:
		c.sendWire(from, transport.Append, wire{kind: wireForwarded, f: [5]uint64{term, w.f[1], next}})
	}
	return nil
}

// expect sets the number that comes next.
func (in *intake) expect(key streamKey, next uint64) {
	if in.streams == nil {
		in.streams = make(map[streamKey]uint64)
	}
	in.streams[key] = next
}

// checkGroup makes sure that a forwarded group can be decoded by everybody
// before it gets into the log.
func checkGroup(g groupRef, maxCommand int) error {
	if g.count == 0 || g.count > len(g.data) {
		return fmt.Errorf("%w: %d commands in %d bytes", errWire, g.count, len(g.data))
	}
	rest := g.data
	for range g.count {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) || size > uint64(maxCommand) {
			return fmt.Errorf("%w: a forwarded command is cut short or too large", errWire)
		}
		rest = rest[uint64(n)+size:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes follow a forwarded group", errWire, len(rest))
	}
	return nil
}

// pace decides when the next entry may be proposed, and stamps it.
type pace struct {
	uncommitted []uint64 // indexes of this leader's entries
	proposed    bool     // and not yet seen in the log
	turn        bool     // own groups go first
	last        int      // commands in the last entry or group
	buf         []byte   // memory to pack entries in
	// stamp is the greatest cluster time seen in the log. A leader counts on
	// from base at the time since.
	stamp, base, since int64
}

func (p *pace) clear() { p.uncommitted, p.proposed = nil, false }

// time is cluster time for the next entry: what the log had when this leader
// took over, and its own time since.
func (p *pace) time(now int64) int64 {
	return max(p.stamp, p.base+(now-p.since)/1e6)
}

// advance makes cluster time at least ms.
func (p *pace) advance(now, ms int64) { p.base = max(p.base, ms-(now-p.since)/1e6) }

func (p *pace) committed(commit uint64) {
	n := 0
	for n < len(p.uncommitted) && p.uncommitted[n] <= commit {
		n++
	}
	p.uncommitted = p.uncommitted[n:]
}

// allows reports whether to have one more under way when so many are. One is
// always right. A second one only under load: alone it would make two small
// entries of what could be one. More than two when the disk is slow, as
// measured with the prototype.
func (p *pace) allows(underWay, waiting int, bytes int64, c *Core) bool {
	if underWay == 0 {
		return true
	}
	limit := 2
	if c.disk.slow() {
		limit = 4
	}
	return underWay < limit && (waiting >= max(16, p.last/2) || bytes >= int64(c.opt.MaxEntryBytes)/2)
}

func (c *Core) mayPropose(waiting int, bytes int64) bool {
	if c.state.Stalled || c.conf.transferring || c.pace.proposed || c.limbo() {
		return false
	}
	return c.pace.allows(len(c.pace.uncommitted), waiting, bytes, c)
}

// propose packs what waits, here and from followers, into an entry. At most one
// is made before raft's next Ready.
func (c *Core) propose() {
	own := c.queue.groups[c.queue.sent:]
	if !c.isLeader() || len(own)+len(c.intake.groups) == 0 || c.limbo() {
		return
	}
	for i := 0; i < len(own); i++ {
		if g := own[i]; g.Term != 0 && g.Term != c.state.Term {
			c.dropGroup(c.queue.sent+i, ErrNotLeader)
			own = c.queue.groups[c.queue.sent:]
			i--
		}
	}
	count, bytes := c.intake.count, c.intake.bytes
	for _, g := range own {
		count += g.Count
		bytes += int64(len(g.Data))
	}
	if !c.mayPropose(count, bytes) {
		return
	}
	stamp := c.pace.time(c.now)
	size := min(int(bytes), c.opt.MaxEntryBytes) + (len(own)+len(c.intake.groups))*groupOverhead
	// Raft keeps a copy of what it is given, so that one buffer serves all.
	buf := slices.Grow(c.pace.buf[:0], payloadHeader+size)
	p := packer{payload: appendPayloadHeader(buf, stamp), limit: c.opt.MaxEntryBytes}
	defer func() { c.pace.keep(p.payload) }()
	// Who comes first takes turns, as the second may not fit.
	ownTook, inTook := 0, 0
	if c.pace.turn = !c.pace.turn; c.pace.turn {
		ownTook = p.packOwn(c, own)
	}
	for inTook < len(c.intake.groups) && p.add(c.intake.groups[inTook]) {
		inTook++
	}
	if !c.pace.turn {
		ownTook = p.packOwn(c, own)
	}
	if p.count == 0 || c.node.Propose(p.payload) != nil {
		return // dropped, not appended: all stays where it was
	}
	for _, g := range own[:ownTook] {
		g.term = c.state.Term
	}
	c.queue.sent += ownTook
	c.intake.take(inTook)
	c.pace.proposed, c.pace.last, c.pace.stamp = true, p.count, stamp
}

// keep remembers buf for the next entry unless it is unusually long.
func (p *pace) keep(buf []byte) {
	if cap(buf) <= maxSpareBytes*2 {
		p.buf = buf
	}
}

// packer fills an entry with groups.
type packer struct {
	payload []byte
	limit   int
	count   int // of commands
}

// add reports whether g went in: the first always does.
func (p *packer) add(g groupRef) bool {
	if p.count > 0 && len(p.payload)+len(g.data) > p.limit {
		return false
	}
	p.payload = appendGroup(p.payload, g)
	p.count += g.count
	return true
}

// packOwn adds this member's groups and returns how many.
func (p *packer) packOwn(c *Core, own []*Group) (n int) {
	for n < len(own) && p.add(groupRef{c.id, c.incarnation, own[n].Seq, own[n].Count, own[n].Data}) {
		n++
	}
	return n
}

// take drops the first n groups.
func (in *intake) take(n int) {
	for i := range in.groups[:n] {
		in.count -= in.groups[i].count
		in.bytes -= int64(len(in.groups[i].data))
		in.groups[i] = groupRef{}
	}
	in.groups = in.groups[n:]
}

// noteEntries sees every entry that is given to the log.
func (c *Core) noteEntries(ents []*raftpb.Entry) {
	for _, e := range ents {
		own := c.isLeader() && e.GetTerm() == c.state.Term
		if own {
			c.conf.ownFirst = min(c.conf.ownFirst, e.GetIndex())
		}
		switch {
		case e.GetType() != raftpb.EntryNormal:
			if own {
				c.conf.pending = e.GetIndex()
				c.intake.changeAppended(e)
			}
			c.noteStamp(e)
		case len(e.GetData()) > 0:
			if own {
				c.pace.uncommitted = append(c.pace.uncommitted, e.GetIndex())
				c.pace.proposed = false
			} else {
				c.noteStamp(e)
			}
		}
	}
}

// noteStamp keeps the greatest cluster time that the log has.
func (c *Core) noteStamp(e *raftpb.Entry) {
	if stamp, ok := entryStamp(e); ok {
		c.pace.stamp = max(c.pace.stamp, stamp)
	}
}

// entryStamp returns the cluster time of e, if it has one.
func entryStamp(e *raftpb.Entry) (int64, bool) {
	data := e.GetData()
	if e.GetType() != raftpb.EntryNormal {
		var cc raftpb.ConfChangeV2
		if proto.Unmarshal(data, &cc) != nil {
			return 0, false
		}
		data = cc.GetContext()
	}
	stamp, _, err := payloadStamp(data)
	return stamp, err == nil
}

// lead begins to count cluster time.
func (c *Core) lead() {
	stamp, err := c.lastStamp()
	if err != nil {
		panic(fmt.Sprintf("replica: look for the cluster time: %v", err))
	}
	c.pace.stamp, c.pace.base, c.pace.since = stamp, stamp, c.now
}

// lastStamp looks for the last cluster time in the log as it stands, which is its
// greatest. What noteStamp saw may be greater: time that an earlier leader told
// this member alone, in entries that others have replaced. If a leader counted on
// from that, leases would end early.
func (c *Core) lastStamp() (int64, error) {
	next := c.disk.last + 1
	for _, w := range slices.Backward(c.disk.queue) {
		for _, e := range slices.Backward(w.entries) {
			if e.GetIndex() >= next {
				continue // replaced
			}
			next = e.GetIndex()
			if stamp, ok := entryStamp(e); ok {
				return stamp, nil
			}
		}
		if w.install.Index != 0 {
			return w.install.Time, nil
		}
	}
	s := c.storage.snapshot
	for i := next - 1; i > s.Index && i >= c.storage.first; i-- {
		ents, err := c.storage.Entries(i, i+1, 0)
		if err != nil || len(ents) == 0 {
			return 0, fmt.Errorf("read entry %d: %w", i, err)
		}
		if stamp, ok := entryStamp(ents[0]); ok {
			return stamp, nil
		}
	}
	return s.Time, nil
}
