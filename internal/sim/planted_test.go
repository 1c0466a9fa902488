package sim

import (
	"bufio"
	"bytes"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// planted are faults of a member's program, with the virtual time within which
// the checks have to find each, and what they are expected to say.
var planted = []struct {
	Bug
	budget time.Duration
	faults []string // the only ones, where that helps
}{
	{Bug{Name: "acknowledge before fsync", shell: shellBug{ackEarly: true}}, 6 * time.Minute, nil},
	{Bug{Name: "vote not persisted", Output: forgetVote}, 30 * time.Minute, crashes},
	{Bug{Name: "hard state not persisted", Output: forgetState}, 30 * time.Minute, crashes},
	{Bug{Name: "read without read index", shell: shellBug{staleReads: true}}, 6 * time.Minute, nil},
	{Bug{Name: "read without waiting for apply", shell: shellBug{earlyReads: true}}, 6 * time.Minute, nil},
	{Bug{Name: "read lease by role alone", Mix: leaderReads, shell: shellBug{looseLease: true}}, 30 * time.Minute, nil},
	{Bug{Name: "proposal retried blindly", Mix: manySnapshots, shell: shellBug{blindRetry: true}}, 2 * time.Hour, nil},
	{Bug{Name: "old leader's revoke applied", Mix: manyLeases, shell: shellBug{plainRevoke: true}}, 2 * time.Hour, []string{"pause", "isolate"}},
	{Bug{Name: "apply twice after restart", Machine: wrapMachine(func(b *buggyMachine) { b.twice = b.n.life > 2 })}, 30 * time.Minute, nil},
	{Bug{Name: "failed transaction uses a revision", Machine: wrapMachine(func(b *buggyMachine) { b.burn = true })}, 6 * time.Minute, nil},
	{Bug{Name: "map order in apply", Machine: wrapMachine(func(b *buggyMachine) { b.shuffle = true })}, 6 * time.Minute, nil},
	{Bug{Name: "local clock in apply", Machine: wrapMachine(func(b *buggyMachine) { b.late = int64(b.n.slot) })}, 6 * time.Minute, nil},
	{Bug{Name: "one member applies differently", Machine: wrapMachine(func(b *buggyMachine) { b.forget = b.n.slot == 0 })}, 6 * time.Minute, nil},
	{Bug{Name: "snapshot without leases", Mix: manySnapshots, Machine: wrapMachine(func(b *buggyMachine) { b.strip = true })}, 30 * time.Minute, nil},
	{Bug{Name: "snapshot of an older state", Mix: manySnapshots, Machine: wrapMachine(func(b *buggyMachine) { b.stale = true })}, 30 * time.Minute, nil},
	{Bug{Name: "fsync error retried", Disk: wrapDisk(func(d *buggyFS) { d.retrySync = true })}, 30 * time.Minute, nil},
	{Bug{Name: "directory not fsynced", Mix: smallSegments, Disk: wrapDisk(func(d *buggyFS) { d.skipDir = true })}, time.Hour, nil},
	{Bug{Name: "fsync left out", Disk: wrapDisk(func(d *buggyFS) { d.skipSync = true })}, 6 * time.Minute, nil},
	{Bug{Name: "corruption taken for a torn tail", Boot: cutTail}, 30 * time.Minute, nil},
	{Bug{Name: "clock runs at half speed on one member", Input: slowClock}, 30 * time.Minute, nil},
	{Bug{Name: "dead voter removed before its place is taken", Mix: tended, Tend: removeFirst}, 2 * time.Hour, nil},
	{Bug{Name: "no grace after an election", Mix: tended, View: judgeAtOnce}, 2 * time.Hour, nil},
	{Bug{Name: "vote of a lost disk taken without a look at its old identity", Mix: tended, View: ignoreOld}, 2 * time.Hour, nil},
	{Bug{Name: "members vote before they have caught up", Mix: tended, shell: shellBug{noLearners: true}}, 2 * time.Hour, nil},
	{Bug{Name: "voters are made one by one", Mix: growing, Tend: oneByOne}, 30 * time.Minute, []string{"late"}},
	{reuseReadID(Bug{Name: "read-index id used again", Mix: slowNetwork}), 5 * time.Hour, nil},
}

var crashes = []string{"kill", "power", "power-in-write", "isolate"}

// TestPlanted finds out whether the checks find what they are for.
func TestPlanted(t *testing.T) {
	for _, p := range planted {
		t.Run(p.Name, func(t *testing.T) {
			virtual, began := time.Duration(0), time.Now()
			for seed := uint64(1); virtual < p.budget; seed++ {
				res := Run(Options{Seed: seed, Bug: &p.Bug, Nodes: *flagNodes, Faults: p.faults})
				virtual += res.Virtual
				if res.Err != nil {
					t.Logf("found after %v (%d seeds, %v): %.200s", virtual.Round(time.Second), seed, time.Since(began).Round(time.Millisecond), res.Err)
					return
				}
			}
			t.Errorf("not found in %v", virtual)
		})
	}
}

func leaderReads(m *mix) {
	m.limits.leaderReads = true
	m.load.levels = []kv.ReadLevel{kv.Leader}
}

// manyLeaderReads is where a read lease that lies would show: many short reads
// on all members while leadership moves.
func manyLeaderReads(m *mix) {
	leaderReads(m)
	m.election, m.tick = 300*time.Millisecond, 30*time.Millisecond
	m.apply, m.net.latency, m.net.queue, m.net.drop = 10*time.Microsecond, 100*time.Microsecond, 4096, 0
	m.disk.write, m.limits.messageBytes, m.limits.entryBytes = 100*time.Microsecond, 1<<20, 1<<20
	m.load.clients, m.load.think, m.load.timeout = 10, 10*time.Millisecond, 300*time.Millisecond
}

// TestLeaderReads simulates clusters with leader reads whose leadership moves
// all the time.
func TestLeaderReads(t *testing.T) {
	for seed := *flagStart; seed < *flagStart+1+uint64(*flagSeeds); seed++ {
		report(t, Run(Options{
			Seed: seed, Nodes: 3, Chaos: 20 * time.Second, Calm: 10 * time.Second, Bug: &Bug{Mix: manyLeaderReads},
			Faults: []string{"kill", "isolate", "one-way", "pause", "reset", "transfer"},
		}))
	}
}

func manySnapshots(m *mix) { m.limits.snapshotBytes, m.limits.logBytes = 1<<10, 1 }

func manyLeases(m *mix) { m.load.leases = 5 }

func smallSegments(m *mix) { m.limits.segmentBytes = 4 << 10 }

func slowNetwork(m *mix) {
	manyLeaderReads(m)
	m.limits.leaderReads, m.load.levels = false, []kv.ReadLevel{kv.Strong}
	m.net.dup, m.net.latency, m.load.watchers = 0.2, 2*time.Millisecond, 0
}

func forgetVote(_ *process, out *replica.Output) {
	for i := range out.Writes {
		out.Writes[i].Batch.State.Vote = 0
	}
}

func forgetState(_ *process, out *replica.Output) {
	for i := range out.Writes {
		if len(out.Writes[i].Batch.Entries) == 0 {
			out.Writes[i].Batch.State = replica.HardState{}
		}
	}
}

// slowClock makes time pass at half its speed for the first node: it believes
// in its lease for too long.
func slowClock(p *process, in *replica.Input) {
	if p.n.slot == 0 {
		in.Now = p.n.base + 2*(in.Now-p.n.base)
	}
}

// cutTail zeroes the last sector that the log wrote, as a member does that
// takes whatever does not check for a torn tail.
func cutTail(n *node) {
	names, err := n.disk.mem.ReadDir("wal")
	if err != nil || n.life < 3 {
		return
	}
	for i := len(names) - 1; i >= 0; i-- {
		name := "wal/" + names[i]
		data, err := n.disk.mem.ReadFile(name)
		if err != nil {
			continue
		}
		end := len(bytes.TrimRight(data, "\x00"))
		if end < 2*vfs.SectorSize {
			continue
		}
		clear(data[(end-1)/vfs.SectorSize*vfs.SectorSize:])
		if err := n.disk.mem.WriteFile(name, data); err != nil {
			panic(err)
		}
		return
	}
}

// reuseReadID gives every read-index request of a process the same id on the
// wire, and takes any answer for one to the present request.
func reuseReadID(b Bug) Bug {
	keys := map[*process][]byte{}
	b.Output = func(p *process, out *replica.Output) {
		for i := range out.Messages {
			m := &out.Messages[i]
			if rm := readIndexMessage(m.Payload, raftpb.MsgReadIndex); rm != nil {
				keys[p] = rm.Entries[0].Data
				rm.Entries[0].Data = make([]byte, len(keys[p]))
				m.Payload = encodeMessage(rm)
			}
		}
	}
	b.Input = func(p *process, in *replica.Input) {
		if in.Kind != replica.InputMessage || keys[p] == nil {
			return
		}
		if rm := readIndexMessage(in.Payload, raftpb.MsgReadIndexResp); rm != nil {
			rm.Entries[0].Data = keys[p]
			in.Payload = encodeMessage(rm)
		}
	}
	return b
}

// plainMessage is the first byte of a message that is a raftpb.Message and
// nothing more.
const plainMessage = 1

func readIndexMessage(payload []byte, want raftpb.MessageType) *raftpb.Message {
	m := &raftpb.Message{}
	if payload[0] != plainMessage || proto.Unmarshal(payload[1:], m) != nil || m.GetType() != want {
		return nil
	}
	return m
}

func encodeMessage(m *raftpb.Message) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend([]byte{plainMessage}, m)
	if err != nil {
		panic(err)
	}
	return b
}

// buggyMachine is a machine with a fault.
type buggyMachine struct {
	replica.Machine
	n       *node
	twice   bool
	burn    bool
	shuffle bool
	late    int64
	forget  bool
	strip   bool
	stale   bool
	old     func(io.Writer) error
}

func wrapMachine(fault func(*buggyMachine)) func(*node, replica.Machine) replica.Machine {
	return func(n *node, m replica.Machine) replica.Machine {
		b := &buggyMachine{Machine: m, n: n}
		fault(b)
		return b
	}
}

func (b *buggyMachine) Apply(at replica.Position, commands [][]byte, results []any) {
	list := append([][]byte(nil), commands...)
	out := make([]any, len(list), len(list)+1)
	if b.twice && len(list) > 0 {
		b.twice = false
		list, out = append(list, list...), append(out, out...)
	}
	if b.shuffle && len(list) > 1 {
		i := b.n.w.rnd.IntN(len(list))
		list[0], list[i] = list[i], list[0]
	}
	if b.forget && len(list) > 1 {
		list, out = list[:len(list)-1], out[:len(out)-1]
	}
	if b.burn && b.doomed(list) {
		burn := kv.Op{Kind: kv.OpPut, Key: []byte("zz")}
		list, out = append(list, machine.EncodeTxn(nil, &kv.Txn{Success: []kv.Op{burn}})), append(out, nil)
	}
	at.Now += b.late
	b.Machine.Apply(at, list, out)
	copy(results, out)
}

// doomed reports whether one of the commands puts under a lease that is not
// there.
func (b *buggyMachine) doomed(commands [][]byte) bool {
	for _, cmd := range commands {
		if t := b.n.w.people.commands[string(cmd)].txn; t != nil && t.Success[0].Lease == noLease {
			return true
		}
	}
	return false
}

// Snapshot leaves the leases out, or writes the state of the snapshot before.
func (b *buggyMachine) Snapshot() (func(io.Writer) error, func()) {
	write, release := b.Machine.Snapshot()
	switch {
	case b.strip:
		return func(w io.Writer) error {
			var buf bytes.Buffer
			if err := write(&buf); err != nil {
				return err
			}
			_, err := w.Write(withoutLeases(buf.Bytes()))
			return err
		}, release
	case b.stale:
		var buf bytes.Buffer
		if err := write(&buf); err != nil {
			panic(err)
		}
		old := b.old
		b.old = func(w io.Writer) error { _, err := w.Write(buf.Bytes()); return err }
		if old != nil {
			return old, release
		}
	}
	return write, release
}

// withoutLeases finds the section of the leases in a snapshot, by the tags
// around it, and empties it.
func withoutLeases(state []byte) []byte {
	const tagLeases, tagRequests = 4, 5
	for i, tag := range state {
		if tag != tagLeases {
			continue
		}
		rest := bytes.NewReader(state[i+1:])
		r := bufio.NewReaderSize(rest, 16)
		table, err := lease.Read(r)
		end := len(state) - rest.Len() - r.Buffered()
		if err != nil || table.Len() == 0 || end >= len(state) || state[end] != tagRequests {
			continue
		}
		var empty bytes.Buffer
		w := bufio.NewWriter(&empty)
		if err := lease.New().Write(w); err != nil {
			panic(err)
		}
		w.Flush()
		return append(append(append([]byte(nil), state[:i+1]...), empty.Bytes()...), state[end:]...)
	}
	return state
}

// buggyFS is a file system used wrongly.
type buggyFS struct {
	vfs.FS
	retrySync, skipDir, skipSync bool
}

func wrapDisk(fault func(*buggyFS)) func(vfs.FS) vfs.FS {
	return func(fs vfs.FS) vfs.FS {
		b := &buggyFS{FS: fs}
		fault(b)
		return b
	}
}

func (b *buggyFS) OpenFile(name string, flag int) (vfs.File, error) {
	f, err := b.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return &buggyFile{f, b}, nil
}

func (b *buggyFS) SyncDir(dir string) error {
	if b.skipDir {
		return nil
	}
	return b.FS.SyncDir(dir)
}

type buggyFile struct {
	vfs.File
	fs *buggyFS
}

func (f *buggyFile) Sync() error {
	if f.fs.skipSync {
		return nil
	}
	err := f.File.Sync()
	if err != nil && f.fs.retrySync {
		err = f.File.Sync()
	}
	return err
}
