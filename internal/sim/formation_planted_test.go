package sim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/founding"
)

// plantedFormations are faults of a founding process, with the kind of run that
// has to find each within so many seeds.
var plantedFormations = []struct {
	FormationBug
	kind  string
	seeds uint64
}{
	{FormationBug{Name: "promise not durable", Forget: func(_, rec *founding.Record) bool { return rec.Phase == founding.Promised }}, "five", 1000},
	{FormationBug{Name: "promise not durable, of a list", Forget: func(_, rec *founding.Record) bool { return rec.Phase == founding.Promised }}, "list", 1000},
	{FormationBug{Name: "promise to two", Input: promiseAgain}, "five", 1000},
	{FormationBug{Name: "proposer forgets that it gave up", Forget: func(old, rec *founding.Record) bool {
		return old.Phase == founding.Proposed && rec.Phase == founding.Free
	}}, "late", 5000},
	{FormationBug{Name: "silence taken for consent", Input: assumeConsent}, "five", 1000},
	{FormationBug{Name: "majority without equal lists", Input: anyList}, "mistaken", 1000},
	{FormationBug{Name: "any number expected", Input: anyNumber}, "mistaken", 1000},
	{FormationBug{Name: "nobody listens", Mix: func(m *formationMix) { m.patience.Listen = -1 }}, "alone", 100},
	{FormationBug{Name: "free before all have renounced", Mix: loseProposers, Input: freeAtOnce}, "wiped", 5000},
	{FormationBug{Name: "founds again after losing its record", Forget: func(_, rec *founding.Record) bool { return rec.Phase == founding.Founded }}, "three", 5000},
}

// TestPlantedFormations finds out whether the checks find what they are for.
func TestPlantedFormations(t *testing.T) {
	for _, x := range plantedFormations {
		t.Run(x.Name, func(t *testing.T) {
			for seed := uint64(1); seed <= x.seeds; seed++ {
				if res := Form(FormationOptions{Kind: x.kind, Seed: seed, Bug: &x.FormationBug}); res.Err != nil {
					t.Logf("found by seed %d: %.250s", seed, res.Err)
					return
				}
			}
			t.Errorf("not found in %d seeds", x.seeds)
		})
	}
}

// promiseAgain makes a process that has promised itself free for the next
// proposal.
func promiseAgain(p *seeker, in *founding.Input) {
	if p.disk.Phase != founding.Promised || in.Heard == nil || in.Heard.Record.Phase != founding.Proposed ||
		in.Heard.Record.Proposal.Cluster == p.disk.Proposal.Cluster {
		return
	}
	p.remake(p.set, founding.Record{ID: p.disk.ID, Seq: p.disk.Seq + 1})
}

func (p *seeker) remake(set founding.Settings, rec founding.Record) {
	m, err := founding.NewMachine(set, rec, p.f.rnd.Uint64)
	if err != nil {
		panic(err)
	}
	p.running.machine = m
}

// assumeConsent counts every answer to a proposer as a promise.
func assumeConsent(p *seeker, in *founding.Input) {
	if p.disk.Phase == founding.Proposed && in.Heard != nil && in.Heard.Record.Phase == founding.Free &&
		slices.ContainsFunc(p.disk.Proposal.Members, func(m founding.Member) bool { return m.ID == in.Heard.Record.ID }) {
		s := *in.Heard
		s.Record.Phase, s.Record.Proposal = founding.Promised, p.disk.Proposal
		in.Heard = &s
	}
}

// loseProposers is where disks are lost just after a decision, and partitions
// last long enough for what follows from that.
func loseProposers(m *formationMix) {
	m.patience.Lost, m.interval, m.discovery, m.latency = 2100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
	m.drop, m.slow, m.crash, m.partition, m.down = 0, 0.3, 0, 2*time.Second, 10*time.Millisecond
	m.wipe, m.chaos, m.decided = 0, 20*time.Second, 1
	for i := range m.starts {
		m.starts[i] = 0
	}
}

// freeAtOnce leaves the second step out: who has renounced a proposal is free.
func freeAtOnce(p *seeker, _ *founding.Input) {
	if r := &p.disk; r.Phase == founding.Promised && slices.Contains(r.Renounced, r.Proposal.Cluster) {
		p.keep(founding.Record{ID: r.ID, Seq: r.Seq + 1, Renounced: r.Renounced})
		p.remake(p.set, p.disk)
	}
}

// anyList takes over whatever list is heard of.
func anyList(p *seeker, in *founding.Input) {
	if in.Heard == nil || len(in.Heard.Names) == 0 || p.disk.Phase != founding.Free || len(in.Heard.Names) == len(p.set.Peers) {
		return
	}
	s := *in.Heard
	if s.Record.Phase == founding.Proposed {
		set := p.set
		set.Peers = map[string][]string{}
		for _, q := range p.f.seekers {
			if slices.Contains(s.Names, q.name) || q == p {
				set.Peers[q.name] = []string{q.addr}
			}
		}
		p.remake(set, p.disk)
		return
	}
	s.Names = p.running.machine.Status().Names
	in.Heard = &s
}

// anyNumber does not care how many others expect.
func anyNumber(p *seeker, in *founding.Input) {
	if in.Heard == nil || in.Heard.Expect == p.set.Expect {
		return
	}
	s := *in.Heard
	if s.Expect == 0 {
		return
	}
	if s.Record.Phase == founding.Proposed && p.disk.Phase == founding.Free {
		set := p.set
		set.Expect = s.Expect
		p.remake(set, p.disk)
		return
	}
	s.Expect = p.set.Expect
	in.Heard = &s
}

// TestFormationIsDeterministic runs seeds twice: everything must happen again.
func TestFormationIsDeterministic(t *testing.T) {
	for _, kind := range FormationKinds() {
		hashes := map[uint64]bool{}
		for seed := uint64(1); seed <= 20; seed++ {
			var a, b bytes.Buffer
			x := Form(FormationOptions{Kind: kind, Seed: seed, Trace: &a})
			y := Form(FormationOptions{Kind: kind, Seed: seed, Trace: &b})
			if x.Hash != y.Hash || x.Events != y.Events || !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Errorf("%s seed %d: the second run differs\n%v\n%v", kind, seed, x, y)
			}
			hashes[x.Hash] = true
		}
		if len(hashes) < 19 {
			t.Errorf("%s: 20 seeds have %d hashes", kind, len(hashes))
		}
	}
}
