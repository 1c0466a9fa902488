package steward

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// life is a cluster whose members die, come back without their data, or come
// late, in steps of half a second. One member leads and stays.
type life struct {
	t       *testing.T
	rnd     *rand.Rand
	view    View
	last    kv.MemberID
	changes int
}

func (l *life) member(id kv.MemberID) *Member {
	i := slices.IndexFunc(l.view.Members, func(m Member) bool { return m.ID == id })
	return &l.view.Members[i]
}

func (l *life) join(name string) {
	l.last++
	l.view.Members = append(l.view.Members, Member{
		Member: kv.Member{ID: l.last, Name: name, PeerAddrs: []string{name}, Learner: true}, Behind: 1 + l.rnd.Uint64N(9),
	})
}

// harm does something to a member: it dies, and may come back in time, or
// without its data. Never so many that no majority is left.
func (l *life) harm() {
	m := &l.view.Members[l.rnd.IntN(len(l.view.Members))]
	up, voters := 0, 0
	for i := range l.view.Members {
		if o := &l.view.Members[i]; !o.Learner {
			voters++
			if o.Silent == 0 && o != m {
				up++
			}
		}
	}
	switch twins := slices.ContainsFunc(l.view.Members, func(o Member) bool { return o.ID != m.ID && o.Name == m.Name }); {
	case m.ID == l.view.Self:
	case m.Silent == 0 && (m.Learner || up > voters/2):
		m.Silent = time.Millisecond
	case m.Silent > 0 && !twins && l.rnd.IntN(2) == 0:
		m.Silent = 0
	case m.Silent > 0 && !twins && !m.Learner:
		l.join(m.Name)
	}
}

func (l *life) pass() {
	for i := range l.view.Members {
		m := &l.view.Members[i]
		if m.Silent > 0 {
			m.Silent += 500 * time.Millisecond
		} else if m.Behind > 0 {
			m.Behind--
		}
		m.CaughtUp = m.Behind == 0
	}
}

// tend lets the steward make a change.
func (l *life) tend() {
	a := Decide(l.view)
	if a.Action == nil {
		return
	}
	if err := check(&l.view, a.Action); err != nil {
		l.t.Fatalf("%+v\n%v: %v", l.view, a, err)
	}
	l.changes++
	for _, id := range a.Action.Promote {
		l.member(id).Learner = false
	}
	l.view.Members = slices.DeleteFunc(l.view.Members, func(m Member) bool { return slices.Contains(a.Action.Remove, m.ID) })
}

func (l *life) alive() (voters, members int) {
	for i := range l.view.Members {
		if m := &l.view.Members[i]; m.Silent == 0 {
			members++
			if !m.Learner {
				voters++
			}
		}
	}
	return voters, members
}

// TestLives leads many clusters through a bad time. Afterwards each has the
// voters that are wanted, alive, and no dead member.
func TestLives(t *testing.T) {
	changes := 0
	for seed := range uint64(2000) {
		l := &life{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), last: 1}
		l.view = View{Self: 1, On: true, Voters: 1 + 2*l.rnd.IntN(3), Contact: contact, DeadAfter: 10 * time.Second}
		l.view.Members = []Member{{CaughtUp: true, Member: kv.Member{ID: 1, Name: "n1", PeerAddrs: []string{"n1"}}}}
		for i := range l.rnd.IntN(7) {
			l.join(fmt.Sprintf("n%d", i+2))
		}
		for range 200 {
			if l.rnd.IntN(8) == 0 {
				l.harm()
			}
			l.pass()
			l.tend()
		}
		for range 100 {
			l.pass()
			l.tend()
		}
		voters, members := l.alive()
		if want := min(l.view.Voters, members); voters < want-1+want%2 || members < len(l.view.Members) && members > l.view.Voters {
			t.Errorf("seed %d: %d of %d members vote at the end, %d are wanted: %v\n%+v", seed, voters, members, l.view.Voters, Decide(l.view), l.view.Members)
		}
		changes += l.changes
	}
	t.Logf("%d changes", changes)
}
