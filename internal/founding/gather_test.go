package founding

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// here puts a founder without a list on the street.
func (s *street) here(t *testing.T, set Settings, d *drawer, rival func(*RivalError)) *Founder {
	t.Helper()
	f, err := New(Config{Settings: set, Record: d.rec, Caller: s, Store: d, Rival: rival})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, addr := range set.Addrs {
		s.at[addr] = f
	}
	return f
}

// TestExpectedFindEachOther: of five processes three found the cluster, though
// each has only heard of the one before it, and the others are told of it.
func TestExpectedFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &street{at: map[string]*Founder{}}
		type result struct {
			p   *Proposal
			err error
		}
		results := make(chan result, 5)
		for i := range 5 {
			<-time.After(time.Second)
			set := Settings{Group: "g", Name: fmt.Sprint("n", i), Expect: 3, Addrs: []string{fmt.Sprint("addr", i)}}
			f := s.here(t, set, &drawer{rec: Record{ID: uint64(50 - i)}}, nil)
			f.Learn("nobody", fmt.Sprint("addr", i))
			if i > 0 {
				f.Learn(fmt.Sprint("addr", i-1))
			}
			go func() {
				p, err := f.Run(t.Context())
				var e *FoundedError
				if errors.As(err, &e) { // it joins
					s.here(t, set, &drawer{rec: MemberOf(e.Cluster, uint64(50-i), set.Name)}, nil)
				}
				results <- result{p, err}
			}()
		}
		var cluster *Proposal
		founded, told := 0, 0
		for range 5 {
			r := <-results
			var e *FoundedError
			switch {
			case errors.As(r.err, &e):
				told++
				if len(e.Addrs) == 0 || e.Cluster == 0 {
					t.Errorf("told of %+v", e)
				}
			case r.err != nil:
				t.Error(r.err)
			case cluster != nil && !cluster.same(r.p):
				t.Errorf("%+v and %+v", cluster, r.p)
			default:
				cluster = r.p
				founded++
			}
		}
		if founded != 3 || told != 2 {
			t.Errorf("%d founded, %d were told", founded, told)
		}
	})
}

// TestWhoExpectsNobodyListensFirst: a cluster of one is founded only after
// nobody else was heard for a while.
func TestWhoExpectsNobodyListensFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &street{at: map[string]*Founder{}}
		run := func(name string, id uint64, listen time.Duration) (*Proposal, time.Duration, error) {
			set := Settings{Name: name, Expect: 1, Addrs: []string{name}, Patience: Patience{Listen: listen}}
			f := s.here(t, set, &drawer{rec: Record{ID: id}}, nil)
			f.Learn("a", "b", "c")
			began := time.Now()
			p, err := f.Run(t.Context())
			return p, time.Since(began), err
		}
		if p, took, err := run("a", 9, 0); err != nil || len(p.Members) != 1 || took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the first: %+v, %v after %v", p, err, took)
		}
		var e *FoundedError
		if _, took, err := run("b", 2, 0); !errors.As(err, &e) || e.Name != "a" || took > time.Second {
			t.Errorf("the second: %v after %v", err, took)
		}
		s.at = map[string]*Founder{}
		if _, took, err := run("c", 3, -1); err != nil || took > time.Second {
			t.Errorf("who does not listen: %v after %v", err, took)
		}
	})
}

// TestAMajorityOfTheList founds the cluster, after having waited for the rest,
// and keeps a place for who comes later.
func TestAMajorityOfTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := map[string][]string{"a": {"1"}, "b": {"2"}, "c": {"3"}}
		s := &street{at: map[string]*Founder{}}
		began := time.Now()
		results := make(chan *Proposal, 2)
		for i, name := range []string{"a", "b"} {
			f := s.move(t, name, peers, &drawer{rec: Record{ID: uint64(30 + i)}})
			go func() {
				p, err := f.Run(t.Context())
				if err != nil {
					t.Error(err)
				}
				results <- p
			}()
		}
		p, q := <-results, <-results
		if took := time.Since(began); !p.same(q) || took < 2*time.Second || took > 4*time.Second {
			t.Errorf("%+v and %+v after %v", p, q, took)
		}
		place := p.place("c")
		if place == nil || len(p.Members) != 3 || p.place("a") != nil || p.holds(place.ID) {
			t.Fatalf("founded %+v", p)
		}
		d := &drawer{rec: Record{ID: 1}}
		_, err := s.move(t, "c", peers, d).Run(t.Context())
		var e *PlaceError
		var founded *FoundedError
		if !errors.As(err, &e) || !errors.As(err, &founded) || e.Place != place.ID || founded.Cluster != p.Cluster || d.rec.Phase != Free {
			t.Errorf("the third: %v", err)
		}
		s.move(t, "c", peers, &drawer{rec: MemberOf(p.Cluster, place.ID, "c")}) // it has taken the place
		if _, err := s.move(t, "b", peers, &drawer{rec: Record{ID: 2}}).Run(t.Context()); errors.As(err, &e) && e.Name == "b" || !errors.As(err, &founded) {
			t.Errorf("a founder without its disk: %v", err)
		}
	})
}

// TestRivalsAreReported, once a minute by those who hear of them, and nothing
// else is done.
func TestRivalsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &street{at: map[string]*Founder{}}
		var mu sync.Mutex
		var seen []*RivalError
		note := func(r *RivalError) { mu.Lock(); defer mu.Unlock(); seen = append(seen, r) }
		set := func(name string) Settings {
			return Settings{Group: "g", Name: name, Expect: 1, Addrs: []string{"at-" + name}}
		}
		a := s.here(t, set("a"), &drawer{rec: MemberOf(0xaaa, 1, "a")}, note)
		b := s.here(t, set("b"), &drawer{rec: MemberOf(0xbbb, 2, "b")}, nil)
		s.here(t, set("c"), &drawer{rec: MemberOf(0xaaa, 3, "c")}, nil)
		var log bytes.Buffer
		b.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		a.Learn("at-b", "at-c")
		if err := a.Watch(ctx); err != nil {
			t.Error(err)
		}
		if len(seen) < 6 || len(seen) > 11 {
			t.Fatalf("%d reports in ten minutes", len(seen))
		}
		if r := seen[0]; r.Cluster != 0xaaa || r.Other != 0xbbb || r.Name != "b" {
			t.Errorf("%+v", r)
		}
		for _, want := range []string{"aaa", "bbb", "at-a", "at-b", "never merged", "concord backup create"} {
			if !strings.Contains(seen[0].Error(), want) || !strings.Contains(log.String(), want) {
				t.Errorf("%q is neither in %q nor logged: %s", want, seen[0], log.String())
			}
		}
		if a.machine.rec.Proposal.Cluster != 0xaaa || b.machine.rec.Proposal.Cluster != 0xbbb {
			t.Error("they have merged")
		}
	})
}

// TestAddressesAreBounded: no list of addresses, and nobody who asks, makes a
// founder ask without bound, or itself.
func TestAddressesAreBounded(t *testing.T) {
	s := &street{at: map[string]*Founder{}}
	f := s.here(t, Settings{Name: "a", Expect: 3, Addrs: []string{"me"}}, &drawer{rec: Record{ID: 1}}, nil)
	f.Learn("me", "", strings.Repeat("x", maxText+1), "b", "b")
	if len(f.targets) != 1 {
		t.Errorf("asks %v", f.targets)
	}
	for i := range 3 * maxTargets {
		question := Status{Version: version, Name: fmt.Sprint("n", i), Expect: 3, PeerAddrs: []string{fmt.Sprint("addr", i)}, Record: Record{ID: uint64(i + 2)}}
		if _, err := f.Answer(question.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.targets) > maxTargets || len(f.machine.known) > maxKnown {
		t.Errorf("%d targets, %d known", len(f.targets), len(f.machine.known))
	}
	list := s.move(t, "a", map[string][]string{"a": {"1"}, "b": {"2"}}, &drawer{rec: Record{ID: 1}})
	if list.Learn("elsewhere"); len(list.targets) != 1 {
		t.Error("an address was added to a list")
	}
}

// expecting makes a machine without a list, with an id, that waits for nothing.
func expecting(t *testing.T, n int, name string, rec Record) *Machine {
	t.Helper()
	set := Settings{Group: "g", Name: name, Expect: n, Addrs: []string{"at-" + name}, Patience: Patience{Listen: -1}}
	id := 1000 * rec.ID
	m, err := NewMachine(set, rec, func() uint64 { id++; return id })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// talk has m ask the others at a time.
func talk(m *Machine, now time.Duration, others ...*Machine) (out Output) {
	for _, o := range others {
		o.Step(Input{Now: now, Heard: m.Status()})
		if got := m.Step(Input{Now: now, Heard: o.Status(), Answer: true}); got.Save != nil || got.Err != nil {
			out = got
		}
	}
	return out
}

func TestProblemsWithoutAListAreNamed(t *testing.T) {
	for text, change := range map[string]func(m *Machine){
		"expects 5 members to found the cluster, this member 3": func(m *Machine) { m.set.Expect = 5 },
		"with the list of members":                              func(m *Machine) { m.set.Expect, m.names = 0, []string{"a", "b", "c"} },
		"is of cluster \"red\"":                                 func(m *Machine) { m.set.Group = "red" },
		"has this member's name, at [\"at-b\"]":                 func(m *Machine) { m.set.Name = "a" },
		"has this member's id":                                  func(m *Machine) { m.rec.ID = 1 },
		"is at [\"at-b\"] and at [\"at-c\"]":                    func(m *Machine) { m.set.Name = "c" },
	} {
		a, b, c := expecting(t, 3, "a", Record{ID: 1}), expecting(t, 3, "b", Record{ID: 2}), expecting(t, 3, "c", Record{ID: 3})
		change(b)
		talk(a, 0, c)
		if out := a.Step(Input{Heard: b.Status(), Answer: true}); out.Save != nil {
			t.Errorf("%q: it goes on: %+v", text, out.Save)
		}
		problem := fmt.Sprint(a.Problems())
		if !strings.Contains(problem, text) {
			t.Errorf("want %q, got %s", text, problem)
		}
		later := a.set.Lost + time.Second // the one in the way is gone
		d, e := expecting(t, 3, "d", Record{ID: 4}), expecting(t, 3, "e", Record{ID: 5})
		if out := talk(a, later, d, e); out.Save == nil || out.Save.Phase != Proposed {
			t.Errorf("%q: it does not go on without the other: %+v, %v", text, out.Save, a.Problems())
		}
	}
}

// TestTheLostAreReplaced: a proposal that waits for one who does not answer any
// more is given up, and another one made without it.
func TestTheLostAreReplaced(t *testing.T) {
	a, b, c, d := expecting(t, 3, "a", Record{ID: 1}), expecting(t, 3, "b", Record{ID: 2}), expecting(t, 3, "c", Record{ID: 3}), expecting(t, 3, "d", Record{ID: 4})
	first := talk(a, 0, b, c)
	if first.Save == nil || first.Save.Phase != Proposed {
		t.Fatalf("no proposal: %+v", first)
	}
	if out := talk(a, time.Second, d); out.Save != nil {
		t.Fatalf("it is hasty: %+v", out.Save)
	}
	late := a.set.Lost + time.Second
	talk(a, late, b, d) // c is silent
	talk(a, late, b, d) // b hears that it is free
	if a.rec.Phase != Proposed || a.rec.Proposal.holds(3) || !a.rec.Proposal.holds(4) || a.rec.Proposal.same(first.Save.Proposal) {
		t.Fatalf("has %+v", a.rec.Proposal)
	}
	if talk(a, late+time.Second, b, d); a.rec.Phase != Founded {
		t.Errorf("%+v, %v", a.rec, a.Problems())
	}
	if out := talk(c, late+time.Second, a); out.Err == nil {
		t.Errorf("the lost one founds on: %+v", out)
	}
	if s := c.Status(); s.Joins != a.rec.Proposal.Cluster || s.Free != 0 {
		t.Errorf("and says %+v", s)
	}
}

// TestAProposerThatBelongsElsewhereHasGivenUp: its record may count from the
// beginning again.
func TestAProposerThatBelongsElsewhereHasGivenUp(t *testing.T) {
	p := &Proposal{Cluster: 9, Proposer: 1, Seq: 7, Members: []Member{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}}}
	b := expecting(t, 2, "b", Record{ID: 2, Seq: 3, Phase: Promised, Proposal: p})
	b.Step(Input{Heard: expecting(t, 2, "a", Record{ID: 1, Seq: 7, Phase: Proposed, Proposal: p}).Status(), Answer: true})
	elsewhere := expecting(t, 2, "a", MemberOf(0xabc, 1, "a")).Status()
	out := b.Step(Input{Heard: elsewhere})
	var e *FoundedError
	if out.Save == nil || out.Save.Phase != Free || !errors.As(out.Err, &e) || e.Cluster != 0xabc {
		t.Errorf("got %+v", out)
	}
}

// TestAListHasOneCluster: whoever has promised itself to a proposal of a list is
// free when a majority of the list has founded another one.
func TestAListHasOneCluster(t *testing.T) {
	peers := map[string][]string{"a": {"1"}, "b": {"2"}, "c": {"3"}}
	members := func(ids ...uint64) []Member {
		return []Member{{ID: ids[0], Name: "a"}, {ID: ids[1], Name: "b"}, {ID: ids[2], Name: "c", Placeholder: ids[2] > 90}}
	}
	promised := &Proposal{Cluster: 8, Proposer: 1, Seq: 1, Members: members(1, 20, 30)}
	c, err := NewMachine(Settings{Name: "c", Peers: peers}, Record{ID: 30, Seq: 1, Phase: Promised, Proposal: promised}, nil)
	if err != nil {
		t.Fatal(err)
	}
	founded := &Proposal{Cluster: 9, Proposer: 10, Seq: 1, Members: members(10, 20, 99)}
	b, err := NewMachine(Settings{Name: "b", Peers: peers}, Record{ID: 20, Seq: 2, Phase: Founded, Proposal: founded}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var e *PlaceError
	if out := c.Step(Input{Heard: b.Status()}); out.Save == nil || out.Save.Phase != Free || !errors.As(out.Err, &e) || e.Place != 99 {
		t.Errorf("got %+v", out)
	}
	half := Record{ID: 10, Seq: 1, Phase: Proposed, Proposal: &Proposal{Cluster: 9, Proposer: 10, Seq: 1,
		Members: []Member{{ID: 10, Name: "a"}, {ID: 99, Name: "b", Placeholder: true}}}}
	if err := half.Check(); err == nil {
		t.Error("half of a list is enough")
	}
}

// TestLostProposersAreRenounced: the members of a proposal whose proposer has
// lost its disk are free when all of them have renounced it, and not before.
func TestLostProposersAreRenounced(t *testing.T) {
	p := &Proposal{Cluster: 9, Proposer: 1, Seq: 1, Members: []Member{
		{ID: 1, Name: "a", PeerAddrs: []string{"at-a"}}, {ID: 2, Name: "b", PeerAddrs: []string{"at-b"}}, {ID: 3, Name: "c", PeerAddrs: []string{"at-c"}}}}
	promise := func(id uint64, name string) *Machine {
		m := expecting(t, 3, name, Record{ID: id, Seq: 1, Phase: Promised, Proposal: p})
		m.Step(Input{})
		return m
	}
	again := expecting(t, 3, "a", Record{ID: 5})
	founded := expecting(t, 3, "a", Record{ID: 1, Seq: 2, Phase: Founded, Proposal: p}).Status()
	b, c := promise(2, "b"), promise(3, "c")
	soon, late := b.set.Lost-time.Second, b.set.Lost+time.Second
	if talk(b, soon, again); len(b.rec.Renounced) > 0 {
		t.Fatal("it is hasty")
	}
	if talk(b, late, again); !b.rec.renounced(p) || b.rec.Phase != Promised || b.Problems()["a"] == nil {
		t.Fatalf("%+v, %v", b.rec, b.Problems())
	}
	if out := b.Step(Input{Now: late, Heard: founded}); out.Save != nil || out.Err != nil {
		t.Fatalf("it takes the proposer's word: %+v", out)
	}
	heard := *b.Status()
	talk(b, late, c) // c renounces it too, and hears that b has
	if b.rec.Phase != Free || !c.rec.renounced(p) {
		t.Fatalf("%+v, %+v", b.rec, c.rec)
	}
	talk(c, late, b)
	if c.rec.Phase == Promised && c.rec.Proposal.same(p) {
		t.Fatalf("%+v", c.rec)
	}
	if out := b.Step(Input{Now: late, Heard: founded}); out.Err != nil {
		t.Errorf("it is told to join who is alone: %v", out.Err)
	}

	c = promise(3, "c") // which hears of the founding first
	c.Step(Input{Heard: founded})
	if c.Step(Input{Heard: &heard}); c.rec.Phase != Founded || c.rec.renounced(p) {
		t.Fatalf("%+v", c.rec)
	}
	b, err := NewMachine(b.set, heard.Record, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := b.Step(Input{Heard: c.Status()}); out.Founded == nil || out.Founded.Cluster != 9 {
		t.Errorf("it does not take another's word: %+v", out)
	}
	if a := expecting(t, 3, "a", Record{ID: 1, Seq: 1, Phase: Proposed, Proposal: p}); a.Step(Input{Heard: &heard}).Save == nil || a.rec.Phase != Free {
		t.Errorf("the proposer waits on: %+v", a.rec)
	}
}
