package concord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord/internal/lab"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// ledger has all events that a member told.
type ledger struct {
	mu     sync.Mutex
	events []observe.Event
}

// observer writes all events down.
func (l *ledger) observer() observe.Observer {
	add := func(e observe.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}
	return observe.Observer{
		API: func(e observe.API) { add(e) }, Apply: func(e observe.Apply) { add(e) },
		State: func(e observe.State) { add(e) }, Snapshot: func(e observe.Snapshot) { add(e) },
		Status: func(e observe.Status) { add(e) }, Disk: func(e observe.Disk) { add(e) },
		Transport: func(e observe.Transport) { add(e) }, Membership: func(e observe.Membership) { add(e) },
		Watch: func(e observe.Watch) { add(e) }, Lease: func(e observe.Lease) { add(e) },
		Expiry: func(e observe.Expiry) { add(e) }, Compaction: func(e observe.Compaction) { add(e) },
		Auth: func(e observe.Auth) { add(e) }, Limit: func(e observe.Limit) { add(e) },
		Backup: func(e observe.Backup) { add(e) }, Proposal: func(e observe.Proposal) { add(e) },
	}
}

// of are the events of a type, in order.
func of[E observe.Event](l *ledger) (out []E) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

// names are those of the events of a type, in order.
func names[E observe.Event](l *ledger) (out []string) {
	for _, e := range of[E](l) {
		out = append(out, e.Name())
	}
	return out
}

// has waits until an event is there for which match is true.
func has[E observe.Event](t *testing.T, l *ledger, match func(E) bool) E {
	t.Helper()
	var found E
	c := testCluster{t: t}
	c.waitFor(func() error {
		for _, e := range of[E](l) {
			if match(e) {
				found = e
				return nil
			}
		}
		return fmt.Errorf("no such %T among %v", found, names[E](l))
	})
	return found
}

// inBubble opens a member whose disk and time are the test's.
func inBubble(t *testing.T, files vfs.FS) (*Node, *ledger) {
	t.Helper()
	l := new(ledger)
	ctx := lab.With(t.Context(), &lab.Lab{Files: files, Now: func() int64 { return time.Now().UnixNano() }})
	n, err := Open(ctx, "/data", Observe(l.observer()))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return n, l
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestEventsOfTheState: leases, keys with a time to live, compactions, watches,
// entries and the periodic status are told when they happen.
func TestEventsOfTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := inBubble(t, new(vfs.Mem))
		defer n.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var watching sync.WaitGroup
		watching.Go(func() {
			for range n.Watch(ctx, kv.WatchRequest{Key: []byte("k"), End: []byte("l")}) {
			}
		})
		synctest.Wait()
		for _, id := range []kv.LeaseID{7, 8} {
			must[kv.LeaseResult](t)(n.Grant(ctx, kv.Grant{ID: id, TTL: 5 * time.Second}))
		}
		must[kv.LeaseResult](t)(n.KeepAlive(ctx, 7))
		must[kv.Header](t)(n.Revoke(ctx, 7))
		must[kv.PutResult](t)(n.Put(ctx, "k1", "v", kv.WithTTL(3*time.Second)))
		must[kv.PutResult](t)(n.Put(ctx, "k2", "v"))
		must[kv.Header](t)(n.Compact(ctx, 2))
		<-time.After(5 * observe.StatusEvery / 2)
		cancel()
		watching.Wait()
		if got, want := names[observe.Lease](l), []string{"lease.granted", "lease.granted", "lease.renewed", "lease.revoked", "lease.expired"}; !slices.Equal(got, want) {
			t.Errorf("leases: %v", of[observe.Lease](l))
		}
		if e := of[observe.Lease](l); e[1].Active != 2 || e[1].TTL != 5*time.Second || e[4].ID != 8 || e[4].Active != 0 {
			t.Errorf("leases: %+v", e)
		}
		if e := of[observe.Expiry](l); len(e) != 1 || e[0].Keys != 1 || e[0].Revision == 0 {
			t.Errorf("keys with a time to live: %+v", e)
		}
		if e := of[observe.Compaction](l); len(e) != 1 || e[0].Revision != 2 || e[0].Revisions <= 0 {
			t.Errorf("compactions: %+v", e)
		}
		if got, want := names[observe.Watch](l), []string{"watch.created", "watch.dispatched", "watch.dispatched", "watch.dispatched", "watch.cancelled"}; !slices.Equal(got, want) {
			t.Errorf("watches: %+v", of[observe.Watch](l))
		}
		if e := of[observe.Watch](l); e[0].Streams != 1 || e[1].Events != 1 || e[4].Streams != 0 {
			t.Errorf("watches: %+v", e)
		}
		if e := of[observe.Status](l); len(e) < 2 || e[1].Keys != 1 || e[1].Role != "leader" || e[1].Members != 1 || e[1].Applied == 0 || e[1].Member != uint64(n.id) {
			t.Errorf("status: %+v", e)
		}
		index := uint64(0)
		ops := map[string]bool{}
		for _, e := range of[observe.Apply](l) {
			if e.Index <= index || e.Term == 0 || e.Replayed {
				t.Errorf("entry %+v after entry %d", e, index)
			}
			index = e.Index
			ops[e.Operation] = true
		}
		for _, op := range []string{"put", "lease grant", "lease keep-alive", "lease revoke", "compact", "expire"} {
			if !ops[op] {
				t.Errorf("no entry is of kind %q: %v", op, ops)
			}
		}
		if e := of[observe.Disk](l); len(e) < 5 || e[len(e)-1].Name() != "disk.write" {
			t.Errorf("disk: %+v", e)
		}
	})
}

// TestEventsOfAStart: the member recovers first, and tells of what it does again
// as that.
func TestEventsOfAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := new(vfs.Mem)
		n, l := inBubble(t, files)
		must[kv.LeaseResult](t)(n.Grant(t.Context(), kv.Grant{ID: 7, TTL: time.Hour}))
		roles := []string{}
		for _, e := range of[observe.State](l) {
			roles = append(roles, e.Role)
		}
		if roles[len(roles)-1] != "leader" || of[observe.State](l)[len(roles)-1].Leader != uint64(n.id) {
			t.Errorf("a member that founded its cluster: %+v", of[observe.State](l))
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n, l = inBubble(t, files)
		states := of[observe.State](l)
		if len(states) < 2 || states[0].Role != "recovering" || states[len(states)-1].Role != "leader" {
			t.Errorf("a member that starts again: %+v", states)
		}
		for i, e := range states[1:] {
			if e.Before != states[i].Role || e.Term < states[i].Term {
				t.Errorf("%+v after %+v", e, states[i])
			}
		}
		if e := of[observe.Apply](l); len(e) == 0 || !e[0].Replayed || e[len(e)-1].Replayed {
			t.Errorf("entries: %+v", e)
		}
		if e := of[observe.Lease](l); len(e) != 0 {
			t.Errorf("leases of the last life: %+v", e)
		}
		// What nobody knows ends the member.
		_, err := n.replica.Propose(t.Context(), []byte{250, 0})
		<-n.Done()
		if e := of[observe.Apply](l); err == nil || e[len(e)-1].Name() != "operation.unknown_command" || e[len(e)-1].Index == 0 {
			t.Errorf("an unknown command: %v; told %+v", err, e)
		}
		_ = n.Close()
	})
}

// TestEventsOfTheDisk: a disk that hangs, one that is full, snapshots, backups.
func TestEventsOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := &sickDisk{heals: make(chan struct{})}
		files.Hook = files.sync
		files.Capacity = 64 << 20
		n, l := inBubble(t, files)
		defer n.Close()
		ctx := t.Context()
		files.hangs.Store(true)
		var writing sync.WaitGroup
		writing.Go(func() { must[kv.PutResult](t)(n.Put(ctx, "k", "v")) })
		<-time.After(3 * time.Second)
		files.hangs.Store(false)
		close(files.heals)
		writing.Wait()
		synctest.Wait()
		var got []string
		for _, e := range of[observe.Disk](l) {
			if e.Kind != observe.DiskWritten {
				got = append(got, e.Name())
			} else if e.Entries > 0 && e.Bytes == 0 && e.Duration < e.Sync {
				t.Errorf("a write: %+v", e)
			}
		}
		if want := []string{"disk.stalled", "disk.recovered"}; !slices.Equal(got, want) {
			t.Errorf("a disk that hung: %v", got)
		}
		if e := of[observe.State](l); !slices.ContainsFunc(e, func(e observe.State) bool { return e.Stalled }) {
			t.Errorf("states: %+v", e)
		}
		if err := n.Backup(ctx, io.Discard); err != nil {
			t.Fatal(err)
		}
		if e := of[observe.Backup](l); len(e) != 1 || e[0].Err != nil || e[0].Bytes == 0 || e[0].Revision == 0 {
			t.Errorf("backups: %+v", e)
		}
		if e := of[observe.Snapshot](l); len(e) != 1 || e[0].Name() != "snapshot.created" || e[0].Bytes == 0 || e[0].Index == 0 || e[0].Member != uint64(n.id) {
			t.Errorf("snapshots: %+v", e)
		}
		n.figures.events.with(n.figures.observer()).SnapshotTaken(replica.SnapshotMeta{}, 0, errors.New("no"))
		if e := of[observe.Snapshot](l); e[1].Name() != "snapshot.failed" || e[1].Err == nil {
			t.Errorf("snapshots: %+v", e)
		}
		for i := 0; ; i++ {
			if _, err := n.Put(ctx, fmt.Sprint(i), string(make([]byte, 1<<20))); errors.Is(err, kv.ErrNoSpace) {
				break
			} else if err != nil || i > 100 {
				t.Fatal(i, err)
			}
		}
		has(t, l, func(e observe.Disk) bool { return e.Kind == observe.DiskFull })
		has(t, l, func(e observe.Limit) bool { return e.Kind == observe.LimitHit && e.Limit == "space" })
	})
}

// TestEventsOfRefusals: of callers, and of limits.
func TestEventsOfRefusals(t *testing.T) {
	l := new(ledger)
	n := open(t, t.TempDir(), Observe(l.observer()), Limits(kv.Limits{RequestBytes: 1000}))
	guarded(t, n)
	ctx := t.Context()
	_, _ = n.CheckPassword(ctx, "root", "secret")
	_, _ = n.CheckPassword(ctx, "root", "wrong")
	_, _ = n.Put(as(t, n, "bob"), "a", "v")
	_ = n.Backup(as(t, n, "bob"), io.Discard)
	_ = n.Authorize(as(t, n, "bob"), kv.ManageAuth)
	_, _ = n.Put(kv.WithCaller(ctx, kv.Caller{User: "carol"}), "a", "v")
	_, _ = n.AddMember(as(t, n, "bob"), kv.Member{PeerAddrs: []string{"127.0.0.1:1"}})
	want := []observe.Auth{
		{Kind: observe.LoggedIn, User: "root", Op: observe.OpAuthenticate},
		{Kind: observe.LoginFailed, User: "root", Op: observe.OpAuthenticate},
		{Kind: observe.Denied, User: "bob", Op: observe.OpPut},
		{Kind: observe.Denied, User: "bob", Op: observe.OpSnapshot},
		{Kind: observe.Denied, User: "bob"},
		{Kind: observe.UnknownCaller, User: "carol", Op: observe.OpPut},
		{Kind: observe.Denied, User: "bob", Op: observe.OpMember},
	}
	got := of[observe.Auth](l)
	for i := range got {
		if i < len(want) && got[i] != want[i] {
			t.Errorf("event %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d events: %+v", len(got), got)
	}
	_, _ = n.Put(ctx, "a", string(make([]byte, 2000)))
	n.TellLimit(observe.Limit{Kind: observe.LimitCleared, Limit: "memory"})
	if e := of[observe.Limit](l); len(e) != 2 || e[0] != (observe.Limit{Kind: observe.LimitHit, Limit: "request size"}) || e[1].Name() != "limit.cleared" {
		t.Errorf("limits: %+v", e)
	}
	seen := map[string]bool{}
	for _, e := range of[observe.API](l) {
		seen[e.Name()] = true
	}
	for _, name := range []string{"api.authenticate", "api.auth", "api.member", "api.snapshot"} {
		if !seen[name] {
			t.Errorf("no %s was told", name)
		}
	}
}

// TestEventsOfMembers: as they are applied.
func TestEventsOfMembers(t *testing.T) {
	n := &Node{id: 1, machine: machine.New(machine.Options{}), figures: new(figures)}
	defer n.machine.Close()
	l := new(ledger)
	n.figures.events.hub.Add(l.observer())
	n.machine.Bootstrap(7, []kv.Member{{ID: 1, Name: "n1", PeerAddrs: []string{"a:1"}}})
	m := n.figures.events.begin(n, n.machine, 2)
	first := uint64(n.machine.Status().Applied)
	for i, c := range []machine.MemberChange{
		{Op: machine.AddMember, Member: kv.Member{ID: 9, PeerAddrs: []string{"a:9"}, Learner: true}}, // again, as replayed
		{Op: machine.AddMember, Member: kv.Member{ID: 2, PeerAddrs: []string{"a:2"}, Learner: true}},
		{Op: machine.PromoteMember, Member: kv.Member{ID: 2}},
		{Op: machine.RemoveMember, Member: kv.Member{ID: 2}},
		{Op: machine.RemoveMember, Member: kv.Member{ID: 2}}, // refused
	} {
		m.ApplyMembers(replica.Position{Index: max(first, 1) + uint64(i) + 1, Term: 1}, machine.EncodeMembers(nil, c))
	}
	m.Apply(replica.Position{Index: 50, Term: 1}, [][]byte{machine.EncodeUpdateMember(nil, kv.Member{ID: 1, PeerAddrs: []string{"a:3"}})}, nil)
	want := []string{"member.added", "member.promoted", "member.removed", "member.updated"}
	if got := names[observe.Membership](l); !slices.Equal(got, want) {
		t.Fatalf("members: %+v", of[observe.Membership](l))
	}
	if e := of[observe.Membership](l); !e[0].Learner || e[0].Members != 3 || e[2].Members != 2 || e[3].Member != 1 || e[3].Index != 50 {
		t.Errorf("members: %+v", e)
	}
}

// TestEventsBetweenMembers: connections, and a snapshot for one that was away.
func TestEventsBetweenMembers(t *testing.T) {
	c := newTestCluster(t, 3, quick(), SnapshotEvery(64<<10))
	ledgers := make([]*ledger, 3)
	var group sync.WaitGroup
	for i := range c.nodes {
		ledgers[i] = new(ledger)
		group.Go(func() { c.start(i, Observe(ledgers[i].observer())) })
	}
	group.Wait()
	for i := range c.nodes {
		c.ready(i)
	}
	lead := slices.IndexFunc(c.nodes, func(n *Node) bool { return n.Status().Role == kv.LeaderRole })
	for lead < 0 {
		lead = slices.IndexFunc(c.nodes, func(n *Node) bool { return n.Status().Role == kv.LeaderRole })
	}
	away := (lead + 1) % 3
	id := uint64(c.nodes[away].id)
	l := ledgers[lead]
	has(t, l, func(e observe.Transport) bool { return e.Kind == observe.RoundTrip && e.Peer == id && e.RoundTrip > 0 })
	has(t, l, func(e observe.State) bool { return e.Role == "leader" && e.Before != "leader" })
	has(t, ledgers[away], func(e observe.State) bool { return e.Role == "follower" && e.Leader == uint64(c.nodes[lead].id) })
	c.close(away)
	has(t, l, func(e observe.Transport) bool { return e.Kind == observe.Disconnected && e.Peer == id })
	value := string(make([]byte, 16<<10))
	for i := range 100 {
		must[kv.PutResult](t)(c.nodes[lead].Put(t.Context(), fmt.Sprint(i%3), value))
	}
	for range 2 { // the log is kept from the last but one on
		must[replica.SnapshotMeta](t)(c.nodes[lead].replica.Snapshot(t.Context()))
		must[kv.PutResult](t)(c.nodes[lead].Put(t.Context(), "k", value))
	}
	has(t, l, func(e observe.Transport) bool { return e.Kind == observe.Dropped && e.Peer == id && e.Drops > 0 })
	ledgers[away] = new(ledger)
	c.open(away, Observe(ledgers[away].observer()))
	has(t, l, func(e observe.Transport) bool { return e.Kind == observe.Connected && e.Peer == id })
}

// TestEventsOfALaggingWatch: one that begins in the past has more to read than it
// is given at once, and is told how far it is behind.
func TestEventsOfALaggingWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := inBubble(t, new(vfs.Mem))
		defer n.Close()
		const more = 10
		for range watchChunkEvents + more {
			must[kv.PutResult](t)(n.Put(t.Context(), "k", "v"))
		}
		seen, last := 0, n.Status().Revision
		for batch, err := range n.Watch(t.Context(), kv.WatchRequest{Key: []byte("k"), Start: 1}) {
			if seen += len(batch.Events); err != nil || batch.Revision == last {
				break
			}
		}
		var lagging []observe.Watch
		for _, e := range of[observe.Watch](l) {
			if e.Name() == "watch.lagging" {
				lagging = append(lagging, e)
			}
		}
		if seen != watchChunkEvents+more || len(lagging) != 1 || lagging[0].Lag != more || lagging[0].Events != 0 {
			t.Errorf("%d events; %+v", seen, lagging)
		}
	})
}
