package founding

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a set of processes, their disks and the network between them, driven
// by one random source.
type world struct {
	rng   *rand.Rand
	peers map[string][]string
	procs []*proc
	net   []packet
	// wipes: now and then a process loses its disk.
	wipes bool
	// forget plants a fault: a crash takes back the last record, as if it
	// had been spoken of before it was durable.
	forget bool
	// calm: nothing goes wrong any more.
	calm bool

	decided []*Proposal // every one that was founded on some disk, ever
	bad     []string    // what must not be
	saves   int
	tracing bool
	trace   []string
}

// proc is a place where a process runs.
type proc struct {
	name       string
	m          *Machine // nil while it is down
	disk, prev Record   // prev is the record before
	err        error
}

// packet is a status on its way; asked is the sender's name in an answer.
type packet struct {
	from, to *proc
	asked    string
	status   *Status
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), peers: map[string][]string{}}
	for i := range 1 + w.rng.IntN(5) {
		p := &proc{name: fmt.Sprint("n", i), disk: Record{ID: w.rng.Uint64() | 1}}
		p.prev = p.disk
		w.peers[p.name] = []string{"addr-" + p.name}
		w.procs = append(w.procs, p)
	}
	return w
}

func (w *world) note(format string, args ...any) {
	if !w.tracing {
		return
	}
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) wrong(format string, args ...any) {
	w.note("WRONG: "+format, args...)
	w.bad = append(w.bad, fmt.Sprintf(format, args...))
}

func (w *world) start(p *proc) {
	set := Settings{Name: p.name, Peers: w.peers, ClientAddrs: []string{"client-" + p.name}}
	m, err := NewMachine(set, p.disk, w.rng.Uint64)
	if err != nil {
		w.wrong("%s cannot start: %v", p.name, err)
		return
	}
	p.m = m
	w.step(p, Input{})
}

// step gives a process an input; it may crash before or after what it saves.
func (w *world) step(p *proc, in Input) {
	out := p.m.Step(in)
	fate := w.rng.IntN(200)
	if out.Save != nil && fate < 10 && !w.calm {
		w.crash(p)
		return
	}
	if out.Save != nil {
		p.prev, p.disk = p.disk, *out.Save
		w.saves++
		w.note("%s (%x) saves %q of %v", p.name, p.disk.ID, p.disk.Phase, p.disk.Proposal)
		w.judge(p)
	}
	if out.Save != nil && fate < 20 && !w.calm {
		w.crash(p)
		return
	}
	if out.Err != nil {
		p.err = out.Err
	}
	if out.Ask {
		w.ask(p)
	}
}

func (w *world) crash(p *proc) {
	p.m = nil
	if w.forget {
		p.disk = p.prev
	}
	w.note("%s crashes", p.name)
}

func (w *world) wipe(p *proc) {
	p.m = nil
	p.disk = Record{ID: w.rng.Uint64() | 1}
	p.prev, p.err = p.disk, nil
	w.note("%s is wiped, and is %x now", p.name, p.disk.ID)
}

func (w *world) ask(p *proc) {
	for _, q := range w.procs {
		if q != p {
			w.net = append(w.net, packet{from: p, to: q, status: p.m.Status()})
		}
	}
}

// deliver gives a packet to whoever runs at the place it was sent to.
func (w *world) deliver(k packet) {
	if k.to.m == nil {
		return
	}
	if w.rng.IntN(20) == 0 { // bytes are slow
		s, err := decode(k.status.encode())
		if err != nil {
			w.wrong("%s cannot be understood: %v", k.from.name, err)
			return
		}
		k.status = s
	}
	w.step(k.to, Input{Heard: k.status, Asked: k.asked, Answer: k.asked != ""})
	if k.asked == "" && k.to.m != nil {
		w.net = append(w.net, packet{from: k.to, to: k.from, asked: k.to.name, status: k.to.m.Status()})
	}
}

// judge checks what a process has just saved.
func (w *world) judge(p *proc) {
	if err := p.disk.Check(); err != nil {
		w.wrong("%s saved a record it will not read: %v", p.name, err)
	}
	x := p.disk.Proposal
	if p.disk.Phase != Founded || slices.ContainsFunc(w.decided, x.same) {
		return
	}
	for _, y := range w.decided {
		for _, m := range x.Members {
			if y.member(m.ID) != nil {
				w.wrong("%x is in cluster %x and in cluster %x", m.ID, x.Cluster, y.Cluster)
			}
		}
	}
	w.decided = append(w.decided, x)
}

// chaos makes one thing happen.
func (w *world) chaos() {
	p := w.procs[w.rng.IntN(len(w.procs))]
	switch dice := w.rng.IntN(1000); {
	case dice < 750 && len(w.net) > 0:
		i := w.rng.IntN(len(w.net))
		k := w.net[i]
		if dice < 680 { // else it comes again
			w.net = slices.Delete(w.net, i, i+1)
		}
		if dice < 550 || dice >= 680 { // else it is lost
			w.deliver(k)
		}
	case dice < 850 && p.m != nil:
		w.ask(p)
	case dice < 880:
		w.crash(p)
	case dice < 885 && w.wipes:
		w.wipe(p)
	case p.m == nil:
		w.start(p)
	}
}

// settle runs everything without faults until all is quiet.
func (w *world) settle() {
	w.calm = true
	for quiet := 0; quiet < 2; quiet++ { // what was under way may come last
		before := w.saves
		for _, p := range w.procs {
			if p.m == nil {
				w.start(p)
			}
			w.ask(p)
		}
		for len(w.net) > 0 {
			i := w.rng.IntN(len(w.net))
			k := w.net[i]
			w.net = slices.Delete(w.net, i, i+1)
			w.deliver(k)
		}
		if w.saves != before {
			quiet = -1
		}
	}
	w.outcome()
}

// outcome checks that everyone is founded, or was told why not.
func (w *world) outcome() {
	here := map[uint64]bool{}
	for _, p := range w.procs {
		here[p.disk.ID] = true
	}
	for _, p := range w.procs { // bound to one who is gone: all have to wait
		if p.disk.Phase == Promised && !here[p.disk.Proposal.Proposer] && w.wipes {
			if len(p.m.Problems()) == 0 && p.err == nil {
				w.wrong("%s waits for one who is gone and does not say so", p.name)
			}
			return
		}
	}
	for _, p := range w.procs {
		var founded *FoundedError
		told := errors.As(p.err, &founded)
		switch {
		case p.disk.Phase == Founded:
		case told && w.wipes:
		default:
			w.wrong("%s ends %q: %v %v", p.name, p.disk.Phase, p.err, p.m.Problems())
		}
		if told && !slices.ContainsFunc(w.decided, func(x *Proposal) bool {
			return x.Cluster == founded.Cluster && x.member(p.disk.ID) == nil
		}) {
			w.wrong("%s was told of a cluster that is none, or that it is in: %v", p.name, p.err)
		}
	}
	if !w.wipes && len(w.decided) != 1 {
		w.wrong("%d clusters", len(w.decided))
	}
}

func run(seed uint64, wipes, forget, tracing bool) *world {
	w := newWorld(seed)
	w.wipes, w.forget, w.tracing = wipes, forget, tracing
	for range w.rng.IntN(600) {
		w.chaos()
	}
	w.settle()
	return w
}

// TestOneCluster runs seeded histories of loss, delay, repetition, crashes and
// lost disks. A process is never in two clusters; without lost disks there is
// exactly one in the end.
func TestOneCluster(t *testing.T) {
	decided, alone := 0, 0
	for seed := range uint64(3000) {
		w := run(seed, seed%3 == 0, false, false)
		if len(w.bad) > 0 {
			w = run(seed, seed%3 == 0, false, true)
			t.Fatalf("seed %d: %s\n%s", seed, strings.Join(w.bad, "\n"), strings.Join(w.trace, "\n"))
		}
		decided += len(w.decided)
		if w.wipes && len(w.decided) == 0 {
			alone++
		}
	}
	if decided < 2500 || alone == 0 {
		t.Errorf("%d clusters, %d times none: the histories are too tame or too wild", decided, alone)
	}
}

// TestForgetfulDisksAreCaught shows that TestOneCluster can fail.
func TestForgetfulDisksAreCaught(t *testing.T) {
	for seed := range uint64(1000) {
		if len(run(seed, false, true, false).bad) > 0 {
			return
		}
	}
	t.Error("records that were spoken of and lost were not noticed in 1,000 histories")
}

func TestSameSeedSameHistory(t *testing.T) {
	for seed := range uint64(50) {
		if a, b := run(seed, true, false, true), run(seed, true, false, true); !slices.EqualFunc(a.trace, b.trace, func(x, y string) bool {
			return strings.Split(x, " of ")[0] == strings.Split(y, " of ")[0] // behind it is a pointer
		}) {
			t.Fatalf("seed %d: two histories", seed)
		}
	}
}

// two machines, for what goes wrong by hand.
func two(t *testing.T, change func(a, b *Settings, ra, rb *Record)) (a, b *Machine) {
	t.Helper()
	peers := map[string][]string{"a": {"addr-a"}, "b": {"addr-b"}}
	sa, sb := Settings{Name: "a", Peers: peers}, Settings{Name: "b", Peers: peers}
	ra, rb := Record{ID: 1}, Record{ID: 2}
	if change != nil {
		change(&sa, &sb, &ra, &rb)
	}
	a, err := NewMachine(sa, ra, func() uint64 { return 77 })
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewMachine(sb, rb, func() uint64 { return 88 })
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestProblemsAreNamed(t *testing.T) {
	other := map[string][]string{"a": {"x"}, "b": {"y"}, "c": {"z"}}
	for text, change := range map[string]func(a, b *Settings, ra, rb *Record){
		"is of cluster \"red\"":    func(a, b *Settings, _, _ *Record) { b.Group = "red" },
		"lists the members":        func(_, b *Settings, _, _ *Record) { b.Peers = other },
		"has this member's id":     func(_, _ *Settings, _, rb *Record) { rb.ID = 1 },
		"check the list of member": func(_, b *Settings, _, _ *Record) { b.Name, b.Peers = "c", other },
		"is member 2 now": func(_, _ *Settings, ra, _ *Record) {
			*ra = Record{ID: 1, Seq: 1, Phase: Promised, Proposal: &Proposal{Cluster: 9, Proposer: 7, Seq: 1,
				Members: []Member{{ID: 1, Name: "a"}, {ID: 7, Name: "b"}}}}
		},
	} {
		a, b := two(t, change)
		out := a.Step(Input{Heard: b.Status(), Asked: "b", Answer: true})
		if err := a.Problems()["b"]; out.Save != nil || err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("want %q, got %v (%+v)", text, err, out)
		}
	}
}

func TestFoundedElsewhere(t *testing.T) {
	founded := &Proposal{Cluster: 0xabc, Proposer: 2, Seq: 1, Members: []Member{{ID: 2, Name: "b"}, {ID: 5, Name: "a"}}}
	a, b := two(t, func(_, _ *Settings, _, rb *Record) { *rb = Record{ID: 2, Seq: 2, Phase: Founded, Proposal: founded} })
	out := a.Step(Input{Heard: b.Status()})
	var e *FoundedError
	if !errors.As(out.Err, &e) || e.Cluster != 0xabc || !strings.Contains(e.Error(), "already founded") || out.Save != nil {
		t.Errorf("got %+v", out)
	}
	if out := b.Step(Input{}); out.Founded != founded || out.Save != nil || out.Ask {
		t.Errorf("the founded one starts again with %+v", out)
	}
	if out := b.Step(Input{Heard: a.Status()}); out.Save != nil || out.Err != nil {
		t.Errorf("the founded one is moved: %+v", out)
	}
}

// TestPromiseBeforeJoining: who has promised itself is not told to join.
func TestPromiseBeforeJoining(t *testing.T) {
	promise := &Proposal{Cluster: 9, Proposer: 1, Seq: 1, Members: []Member{{ID: 1, Name: "a"}, {ID: 3, Name: "b"}}}
	_, b := two(t, func(_, _ *Settings, _, rb *Record) { *rb = Record{ID: 3, Seq: 1, Phase: Promised, Proposal: promise} })
	s := *b.Status()
	s.Name, s.Record = "a", MemberOf(0xabc, 7, "a")
	if out := b.Step(Input{Heard: &s}); out.Err != nil || out.Save != nil || b.Problems()["a"] == nil {
		t.Errorf("got %+v, %v", out, b.Problems())
	}
}

// TestReleaseNeedsALaterRecord: a proposal that was overtaken by a newer one of
// the same proposer must not take its place.
func TestReleaseNeedsALaterRecord(t *testing.T) {
	members := []Member{{ID: 1, Name: "a", PeerAddrs: []string{"addr-a"}}, {ID: 2, Name: "b", PeerAddrs: []string{"addr-b"}}}
	older := Record{ID: 1, Seq: 1, Phase: Proposed, Proposal: &Proposal{Cluster: 5, Proposer: 1, Seq: 1, Members: members}}
	newer := Record{ID: 1, Seq: 3, Phase: Proposed, Proposal: &Proposal{Cluster: 6, Proposer: 1, Seq: 3, Members: members}}
	a, b := two(t, nil)
	hear := func(r Record) Output {
		s := *a.Status()
		s.Record = r
		return b.Step(Input{Heard: &s})
	}
	if out := hear(older); out.Save == nil || out.Save.Phase != Promised {
		t.Fatalf("no promise: %+v", out)
	}
	if out := hear(newer); out.Save == nil || out.Save.Phase != Promised || out.Save.Proposal.Cluster != 6 || out.Save.Seq != 3 {
		t.Fatalf("no new promise: %+v", out)
	}
	if out := hear(older); out.Save != nil {
		t.Fatalf("moved by an old message: %+v", out.Save)
	}
	fresh, err := NewMachine(b.set, b.rec, nil) // it has forgotten what it heard, not what it promised
	if err != nil {
		t.Fatal(err)
	}
	b = fresh
	if out := hear(older); out.Save != nil {
		t.Fatalf("moved by an old message after a restart: %+v", out.Save)
	}
}

// TestNewListReleases: a proposer that was started again with another list gives
// its proposal up.
func TestNewListReleases(t *testing.T) {
	a, b := two(t, nil)
	out := a.Step(Input{Heard: b.Status(), Answer: true})
	if out.Save == nil || out.Save.Phase != Proposed {
		t.Fatalf("no proposal: %+v", out)
	}
	for _, peers := range []map[string][]string{
		{"a": {"addr-a"}, "b": {"elsewhere"}},
		{"a": {"addr-a"}, "b": {"addr-b"}, "c": {"addr-c"}},
	} {
		again, err := NewMachine(Settings{Name: "a", Peers: peers}, *out.Save, nil)
		if err != nil {
			t.Fatal(err)
		}
		if out := again.Step(Input{}); out.Save == nil || out.Save.Phase != Free || out.Save.Proposal != nil {
			t.Errorf("%v: %+v", peers, out.Save)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	many := map[string][]string{}
	for i := range MaxMembers + 1 {
		many[fmt.Sprint(i)] = []string{"x"}
	}
	for _, s := range []Settings{
		{}, {Name: "a"}, {Name: "a", Peers: map[string][]string{"b": {"x"}}},
		{Name: "a", Peers: map[string][]string{"a": nil, "b": nil}},
		{Name: "0", Peers: many},
		{Name: "a", Peers: map[string][]string{"a": {strings.Repeat("x", 1000)}}},
	} {
		if _, err := NewMachine(s, Record{ID: 1}, nil); err == nil {
			t.Errorf("accepted %+v", s)
		}
	}
	if _, err := NewMachine(Settings{Name: "a", Peers: map[string][]string{"a": nil}}, Record{}, nil); err == nil {
		t.Error("accepted a record without an id")
	}
}

// FuzzMessage decodes anything; what is accepted can be encoded and stepped.
func FuzzMessage(f *testing.F) {
	w := run(1, true, false, false)
	for _, p := range w.procs {
		f.Add(p.m.Status().encode())
	}
	f.Add([]byte(`{"version":3}`))
	f.Add(expectingStatus().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		if _, err := decode(s.encode()); err != nil {
			t.Fatalf("%s: %v", s.encode(), err)
		}
		names := map[string][]string{"me": nil}
		for _, n := range s.Names {
			names[n] = []string{"x"}
		}
		for _, set := range []Settings{
			{Name: "me", Group: s.Group, Peers: names},
			{Name: "me", Group: s.Group, Expect: max(s.Expect, 1), Addrs: []string{"x"}, Patience: Patience{Listen: -1}},
		} {
			m, err := NewMachine(set, Record{ID: 42}, rand.Uint64)
			if err != nil {
				return
			}
			for _, now := range []time.Duration{0, time.Minute} {
				out := m.Step(Input{Now: now, Heard: s, Answer: true})
				if out.Save == nil {
					continue
				}
				if err := out.Save.Check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func expectingStatus() *Status {
	return &Status{Version: version, Name: "a", Expect: 2, Free: 1, PeerAddrs: []string{"x"}, Record: Record{ID: 1, Seq: 1, Phase: Proposed,
		Proposal: &Proposal{Cluster: 3, Proposer: 1, Seq: 1, Members: []Member{{ID: 1, Name: "a"}, {ID: 42, Name: "me", PeerAddrs: []string{"x"}}}}}}
}
