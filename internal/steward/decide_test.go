package steward

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

const contact, grace = time.Second, time.Minute

// parse reads a cluster, a word a member:
//
//	v1 a voter, l1 a learner, with id 1 and name n1; behind it any of
//	:2s  silent for so long
//	/9   9 entries behind, and not caught up
//	=n2  named n2, at n2's address
//	?    never started
//
// The first voter leads.
func parse(t testing.TB, target int, text string) View {
	v := View{Term: 7, On: true, Voters: target, Contact: contact, DeadAfter: grace}
	for _, word := range strings.Fields(text) {
		id := kv.MemberID(word[1] - '0')
		m := Member{CaughtUp: true, Member: kv.Member{ID: id, Name: fmt.Sprintf("n%d", id), Learner: word[0] == 'l'}}
		for rest := word[2:]; rest != ""; {
			end := strings.IndexAny(rest[1:], ":/=?") + 1
			if end == 0 {
				end = len(rest)
			}
			var err error
			switch option := rest[1:end]; rest[0] {
			case ':':
				m.Silent, err = time.ParseDuration(option)
			case '/':
				m.CaughtUp = false
				_, err = fmt.Sscan(option, &m.Behind)
			case '=':
				m.Name = option
			case '?':
				m.Name = ""
			}
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[end:]
		}
		m.PeerAddrs = []string{m.Name + ":2380"}
		if v.Self == 0 && !m.Learner {
			v.Self = id
		}
		v.Members = append(v.Members, m)
	}
	return v
}

func (a Advice) String() string {
	s := "nothing"
	if a.Action != nil {
		s = fmt.Sprintf("+%d -%d", a.Action.Promote, a.Action.Remove)
	}
	return s + "; " + strings.Join(a.Judgement, "; ")
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		target        int
		cluster, want string // the action, and a part of the judgement
	}{
		// Growth, so that the number of voters is odd.
		{3, "v1 v2 v3", "nothing; "},
		{3, "v1 l2", "nothing; n2 (2) has caught up, and gets a vote with one more"},
		{3, "v1 l2 l3/9", "nothing; n3 (3) gets a vote when it has caught up: it is 9 entries behind; n2"},
		{3, "v1 l2 l3", "+[2 3] -[]"},
		{3, "v1 v2 l3", "+[3] -[]"},
		{3, "v1 v2 l3/12", "nothing; n3 (3) gets a vote when it has caught up: it is 12 entries behind"},
		{3, "v1 v2 l3:2s", "nothing; there are 2 voters and 3 are wanted: start another member"},
		{3, "v1 v2 v3 l4 l5", "nothing; "},
		{5, "v1 v2 v3 l4", "nothing; n4 (4) has caught up, and"},
		{5, "v1 v2 v3 l4 l5", "+[4 5] -[]"},
		{5, "v1 v2 v3:2s l4 l5", "+[4 5] -[]"},
		{5, "v1 v2 v3 v4 l5", "+[5] -[]"},
		{1, "v1 l2 l3", "nothing; "},
		// A disk was lost: at once, if the old one is not there.
		{3, "v1 v2 v3:2s l4=n3", "+[4] -[3]; n3 (4) has come back without its data and caught up"},
		{3, "v1 v2 v3:2s l4=n3/100", "nothing; n3 (4) has come back without its data, and gets its vote back when it has caught up: it is 100 entries behind"},
		{3, "v1 v2 v3:2s l4=n3/0", "nothing; n3 (4) has come back without its data, and gets its vote back when it has caught up: it has not answered yet"},
		{3, "v1 v2 v3 l4=n3", "nothing; n3 (3) is in contact, and another process has its name and address"},
		{3, "v1 v2 v3:1500ms l4=n3", "nothing; n3 (3) is in contact"},
		{3, "v1 v2 v3:2s l4=n3:2s", "nothing; n3 (3) has been silent for 2s, and counts as dead after 1m"},
		{3, "v1 v2 v3:2m l4=n3:2s l5", "+[5] -[3]"},
		{3, "v1 v2 v3:2m l4=n3/9 l5", "nothing; n3 (4) has come back without its data"},
		{3, "v1 v2:2s v3:2s l4=n3", "nothing; 1 of 3 voters are in contact, which is no majority"},
		{5, "v1 v2:2s v3:2s v4 v5 l6=n3 l7=n2", "+[6] -[3]"},
		// Dead for long: another takes the place.
		{3, "v1 v2 v3:59s l4", "nothing; n3 (3) has been silent for 59s, and counts as dead after 1m"},
		{3, "v1 v2 v3:1m l4", "+[4] -[3]; n3 (3) has been silent for 1m: n4 (4) takes its place"},
		{3, "v1 v2 v3:1m l4/3", "nothing; n3 (3) has been silent for 1m, and no learner that has caught up"},
		{3, "v1 v2 v3:1m l4:1100ms", "nothing; n3 (3) has been silent for 1m, and no learner"},
		{3, "v1 v2 v3:1m", "nothing; n3 (3) has been silent for 1m, and no learner"},
		{5, "v1 v2:2m v3 v4 v5:3m l6 l7", "+[6] -[5]"},
		{5, "v1 v2:2m v3 v4 v5:3m l6", "+[6] -[5]"},
		{3, "v1 v2:2m", "nothing; 1 of 2 voters are in contact"},
		// More than wanted: dead ones may go, so that the number is odd.
		{3, "v1 v2 v3 v4", "nothing; "},
		{3, "v1 v2 v3 v4:2m", "+[] -[4]; n4 (4) has been silent for 2m; there are 4 voters and 3 are wanted"},
		{3, "v1 v2 v3 v4:2m l5", "+[] -[4]"},
		{3, "v1 v2 v3 v4 v5:2m", "nothing; n5 (5) has been silent for 2m, and no learner"},
		{3, "v1 v2 v3 v4:3m v5:2m", "+[] -[4 5]"},
		{3, "v1 v2 v3 v4:30s v5:2m", "nothing; n4 (4) has been silent for 30s"},
		// Learners.
		{3, "v1 v2 v3 l4:59s", "nothing; "},
		{3, "v1 v2 v3 l4:1m", "+[] -[4]; n4 (4) has been silent for 1m and did not vote: removed"},
		{3, "v1 v2 v3 l4:2m?", "nothing; member 4 was added and has never been started"},
		{3, "v1 v2 l3:2m?", "nothing; there are 2 voters"},
		{3, "v1 v2 v3:2m? l4", "+[4] -[3]"},
	} {
		got := Decide(parse(t, c.target, c.cluster)).String()
		if !strings.Contains(got, c.want) || strings.HasPrefix(c.want, "nothing") != strings.HasPrefix(got, "nothing") || c.want == "nothing; " && strings.Contains(got, "start") {
			t.Errorf("%d wanted of %q: %s\nwant %s", c.target, c.cluster, got, c.want)
		}
	}
}

func TestPaused(t *testing.T) {
	v := parse(t, 3, "v1 v2 v3:1m l4")
	v.On = false
	if a := Decide(v); a.Action != nil || len(a.Judgement) != 2 || !strings.Contains(a.Judgement[0], "autopilot is off") {
		t.Errorf("while off: %v", a)
	}
	v.On, v.Changing = true, true
	if a := Decide(v); a.Action != nil || len(a.Judgement) != 1 {
		t.Errorf("while another change is on its way: %v", a)
	}
	v = parse(t, 3, "v1 v2 v3")
	v.On = false
	if a := Decide(v); a.Action != nil || a.Judgement != nil {
		t.Errorf("with nothing to do: %v", a)
	}
}

// state is all that Decide distinguishes in a member that does not lead.
type state struct {
	learner bool
	silent  time.Duration
	ready   bool
	twinOf  int // place of the voter with this name and address; 0 is none
	fresh   bool
}

func states(places int) []state {
	var all []state
	for _, silent := range []time.Duration{0, contact, 2 * contact, grace} {
		all = append(all, state{silent: silent, ready: true})
		for _, ready := range []bool{true, false} {
			for twin := range places + 1 {
				all = append(all, state{learner: true, silent: silent, ready: ready, twinOf: twin})
			}
		}
	}
	return append(all, state{learner: true, silent: grace, fresh: true})
}

// TestEveryCluster asks for the next change in every cluster of up to five
// members, and holds it against the rules, which are written here anew.
func TestEveryCluster(t *testing.T) {
	clusters, acted := 0, 0
	for others := range 5 {
		all := states(others)
		var try func(v View, place int)
		try = func(v View, place int) {
			if place <= others {
				for _, s := range all {
					if s.twinOf >= place { // twins follow on their voters
						continue
					}
					m := Member{Silent: s.silent, CaughtUp: s.ready, Member: kv.Member{ID: kv.MemberID(place + 1), Name: fmt.Sprint(place), Learner: s.learner}}
					if s.twinOf > 0 {
						if v.Members[s.twinOf].Learner {
							continue
						}
						m.Name = fmt.Sprint(s.twinOf)
					}
					m.PeerAddrs = []string{m.Name}
					if s.fresh {
						m.Name = ""
					}
					try(with(v, m), place+1)
				}
				return
			}
			for _, v.Voters = range []int{1, 3, 5} {
				a := Decide(v)
				clusters++
				if a.Action != nil {
					acted++
					if err := check(&v, a.Action); err != nil {
						t.Fatalf("%+v\n%v: %v", v, a, err)
					}
				}
			}
		}
		leader := Member{CaughtUp: true, Member: kv.Member{ID: 1, Name: "0", PeerAddrs: []string{"0"}}}
		try(View{Self: 1, On: true, Contact: contact, DeadAfter: grace, Members: []Member{leader}}, 1)
	}
	t.Logf("%d clusters, a change in %d", clusters, acted)
	if acted < clusters/20 {
		t.Errorf("only %d of %d clusters are changed", acted, clusters)
	}
}

func with(v View, m Member) View {
	v.Members = append(v.Members[:len(v.Members):len(v.Members)], m)
	return v
}

// check holds a change against the rules.
func check(v *View, a *Action) error {
	find := func(id kv.MemberID) *Member {
		i := slices.IndexFunc(v.Members, func(m Member) bool { return m.ID == id })
		return &v.Members[i]
	}
	var before, after []*Member
	for i := range v.Members {
		m := &v.Members[i]
		promoted, removed := slices.Contains(a.Promote, m.ID), slices.Contains(a.Remove, m.ID)
		if !m.Learner {
			before = append(before, m)
		}
		if (!m.Learner || promoted) && !removed {
			after = append(after, m)
		}
		if promoted && (!m.Learner || removed || !m.CaughtUp || m.Silent >= v.Contact || m.Name == "") {
			return fmt.Errorf("%v must not be promoted", m.ID)
		}
		if removed && (m.ID == v.Self || m.Silent < 2*v.Contact) {
			return fmt.Errorf("%v is there and must not be removed", m.ID)
		}
		if removed && m.Silent < v.DeadAfter && !slices.ContainsFunc(a.Promote, func(id kv.MemberID) bool { return find(id).Name == m.Name }) {
			return fmt.Errorf("%v must not be removed without its own new identity", m.ID)
		}
	}
	survives := func(voters []*Member) int {
		alive := 0
		for _, m := range voters {
			if m.Silent < v.Contact {
				alive++
			}
		}
		return alive - len(voters)/2 - 1
	}
	switch now, then := survives(before), survives(after); {
	case now < 0:
		return fmt.Errorf("there is no majority")
	case then < now:
		return fmt.Errorf("%d failures are survived after it, %d before", then, now)
	}
	if len(after)%2 == 0 && len(after) != len(before) {
		return fmt.Errorf("%d voters", len(after))
	}
	if len(after) > len(before) && len(after) > v.Voters || len(after) < len(before) && len(after) < v.Voters {
		return fmt.Errorf("%d voters of %d after %d", len(after), v.Voters, len(before))
	}
	for i, m := range after {
		for _, other := range after[:i] {
			if shareAddr(m, other) {
				return fmt.Errorf("%v and %v vote for one member", m.ID, other.ID)
			}
		}
	}
	return nil
}
