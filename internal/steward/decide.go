package steward

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concord-kv/concord/kv"
)

// View is what a leader knows of its cluster. Decide is a function of it alone.
type View struct {
	// Term is the one that this member leads, and Self its id.
	Term kv.Term
	Self kv.MemberID
	// On is the setting: without it nothing is done.
	On bool
	// Voters is how many there shall be, an odd number.
	Voters int
	// Contact is how long a member may be silent and still be counted on: an
	// election timeout. DeadAfter is when it counts as dead.
	Contact, DeadAfter time.Duration
	// Changing says that an earlier change is still on its way.
	Changing bool
	Members  []Member
}

// Member is one of them.
type Member struct {
	kv.Member
	// Silent is for how long the leader has heard nothing of it, at most since
	// it leads: what an earlier leader heard is not known. 0 for the leader.
	Silent time.Duration
	// CaughtUp says that it could vote at once, Behind how many committed
	// entries it is known to lack.
	CaughtUp bool
	Behind   uint64
}

// Action is one change of the membership, made at once and as a whole.
type Action struct {
	// Promote are learners that get a vote, Remove members that go.
	Promote, Remove []kv.MemberID
	// Reason says it all for people.
	Reason string
}

// Advice is what Decide found.
type Advice struct {
	// Action is what to do now; nil for nothing.
	Action *Action
	// Judgement says for people what is done now and why, and what keeps other
	// things from being done. It is empty where all is as it should be.
	Judgement []string
}

// Decide finds the next change that makes v's cluster as it should be. The rules:
//
//   - Nothing lowers the number of failures that the cluster survives now, in
//     the joint configuration on the way neither; and without a majority in
//     contact nothing is done at all.
//   - A learner that has caught up takes the vote of the member whose name and
//     address it has, at once: that one lost its disk. It takes that of any
//     other only when that has been dead.
//   - Learners get votes, two at once or one, so that the number of voters is
//     odd, up to what is wanted.
//   - A dead voter that nobody can replace stays, unless there are more than
//     wanted and its leaving makes their number odd. A dead learner goes.
func Decide(v View) Advice {
	var a Advice
	s := arrange(&v)
	switch {
	case v.Changing:
		a.note("an earlier change of the membership is not complete")
		return a
	case s.up < quorum(len(s.voters)):
		a.note("%d of %d voters are in contact, which is no majority: nothing can be changed", s.up, len(s.voters))
		return a
	}
	for _, rule := range [...]func(*Advice) *Action{s.comeBack, s.shrink, s.replace, s.grow, s.tidy} {
		if action := rule(&a); action != nil && s.safe(action) {
			a.Action = action
			a.Judgement = append([]string{action.Reason}, a.Judgement...)
			break
		}
	}
	if !v.On && len(a.Judgement) > 0 {
		a.Action = nil
		a.Judgement = append([]string{"the autopilot is off; if it was on:"}, a.Judgement...)
	}
	return a
}

func (a *Advice) note(format string, args ...any) {
	a.Judgement = append(a.Judgement, fmt.Sprintf(format, args...))
}

// sorted is a view with its members in their places.
type sorted struct {
	*View
	voters, learners []*Member
	up               int       // voters in contact
	corpses          []*Member // dead voters, the longest silent first
	ready            []*Member // learners that could take any vote, the best first
}

func arrange(v *View) *sorted {
	s := &sorted{View: v}
	for i := range v.Members {
		m := &v.Members[i]
		if m.Learner {
			s.learners = append(s.learners, m)
			continue
		}
		s.voters = append(s.voters, m)
		if v.alive(m) {
			s.up++
		}
		if v.dead(m) {
			s.corpses = append(s.corpses, m)
		}
	}
	for _, m := range s.learners {
		if v.alive(m) && m.CaughtUp && s.twin(m) == nil {
			s.ready = append(s.ready, m)
		}
	}
	slices.SortStableFunc(s.corpses, func(a, b *Member) int { return cmp.Compare(b.Silent, a.Silent) })
	slices.SortStableFunc(s.ready, func(a, b *Member) int { return cmp.Compare(a.Behind, b.Behind) })
	return s
}

func (v *View) alive(m *Member) bool { return m.ID == v.Self || m.Silent < v.Contact }

// away says that a member is out of contact beyond doubt, though it need not be
// dead.
func (v *View) away(m *Member) bool { return m.ID != v.Self && m.Silent >= 2*v.Contact }

func (v *View) dead(m *Member) bool { return v.away(m) && m.Silent >= v.DeadAfter }

func quorum(voters int) int { return voters/2 + 1 }

// twin is the voter whose name and address a learner has, or nil.
func (s *sorted) twin(learner *Member) *Member {
	for _, m := range s.voters {
		if m.Name != "" && m.Name == learner.Name && shareAddr(m, learner) {
			return m
		}
	}
	return nil
}

func shareAddr(a, b *Member) bool {
	return slices.ContainsFunc(a.PeerAddrs, func(addr string) bool { return slices.Contains(b.PeerAddrs, addr) })
}

// comeBack gives a member that lost its disk its vote back.
func (s *sorted) comeBack(a *Advice) (action *Action) {
	for _, m := range s.learners {
		old := s.twin(m)
		switch {
		case old == nil || !s.alive(m):
		case !s.away(old):
			a.note("%s is in contact, and another process has its name and address: stop one of them, or give it a name of its own", label(old))
		case !m.CaughtUp:
			a.note("%s has come back without its data, and gets its vote back when it has caught up: %s", label(m), behind(m))
		case action == nil:
			action = &Action{
				Promote: ids(m), Remove: ids(old),
				Reason: fmt.Sprintf("%s has come back without its data and caught up: %v takes the vote of %v", label(m), m.ID, old.ID),
			}
		}
	}
	return action
}

// shrink lets dead voters go that are more than wanted.
func (s *sorted) shrink(*Advice) *Action {
	n := len(s.voters)
	spare := min(len(s.corpses), n-s.Voters)
	if spare > 0 && (n-spare)%2 == 0 {
		spare--
	}
	if spare <= 0 {
		return nil
	}
	gone := s.corpses[:spare]
	return &Action{Remove: ids(gone...), Reason: fmt.Sprintf("%s; there are %d voters and %d are wanted: removed", deadFor(gone), n, s.Voters)}
}

// replace gives the vote of a dead member to a learner.
func (s *sorted) replace(a *Advice) *Action {
	for _, m := range s.voters {
		if s.away(m) && !s.dead(m) && !s.hasTwin(m) {
			a.note("%s has been silent for %s, and counts as dead after %s", label(m), about(m.Silent), about(s.DeadAfter))
		}
	}
	var lost []*Member
	for _, m := range s.corpses {
		if !s.hasTwin(m) {
			lost = append(lost, m)
		}
	}
	switch {
	case len(lost) == 0:
		return nil
	case len(s.ready) == 0:
		a.note("%s, and no learner that has caught up can take its place: start another member, or this one again", deadFor(lost[:1]))
		return nil
	}
	return &Action{
		Promote: ids(s.ready[0]), Remove: ids(lost[0]),
		Reason: fmt.Sprintf("%s: %s takes its place", deadFor(lost[:1]), label(s.ready[0])),
	}
}

// hasTwin reports whether a voter's own new identity is about to take its vote.
func (s *sorted) hasTwin(voter *Member) bool {
	return slices.ContainsFunc(s.learners, func(m *Member) bool { return s.alive(m) && s.twin(m) == voter })
}

// grow gives learners votes, as many as keep or make the number of voters odd.
func (s *sorted) grow(a *Advice) *Action {
	n := len(s.voters)
	if n >= s.Voters {
		return nil
	}
	need := 1 + n%2
	if len(s.ready) >= need {
		more := s.ready[:need]
		return &Action{Promote: ids(more...), Reason: fmt.Sprintf("%s caught up: promoted, for %d voters of %d", labels(more, "has", "have"), n+need, s.Voters)}
	}
	for _, m := range s.learners {
		if s.alive(m) && !m.CaughtUp && s.twin(m) == nil {
			a.note("%s gets a vote when it has caught up: %s", label(m), behind(m))
		}
	}
	if len(s.ready) > 0 {
		a.note("%s caught up, and gets a vote with one more, because an even number of voters survives no more failures", labels(s.ready, "has", "have"))
	} else {
		a.note("there are %d voters and %d are wanted: start another member", n, s.Voters)
	}
	return nil
}

// tidy removes dead learners. Those that people added and never started are
// theirs to remove.
func (s *sorted) tidy(a *Advice) *Action {
	var gone []*Member
	for _, m := range s.learners {
		switch {
		case !s.away(m):
		case m.Name == "":
			a.note("%s was added and has never been started: start it at its address, or remove it", label(m))
		case s.dead(m):
			gone = append(gone, m)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return &Action{Remove: ids(gone[0]), Reason: deadFor(gone[:1]) + " and did not vote: removed"}
}

// safe reports whether an action leaves as many failures to survive as there are
// now. On the way both configurations need a majority, and so survive the lesser
// of both numbers.
func (s *sorted) safe(a *Action) bool {
	voters, up := len(s.voters), s.up
	for i := range s.Members {
		m := &s.Members[i]
		change := 0
		if slices.Contains(a.Promote, m.ID) {
			change++
		}
		if !m.Learner && slices.Contains(a.Remove, m.ID) {
			change--
		}
		voters += change
		if s.alive(m) {
			up += change
		}
	}
	return voters > 0 && up-quorum(voters) >= s.up-quorum(len(s.voters))
}

func ids(members ...*Member) (ids []kv.MemberID) {
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return ids
}

// label is a member's name and, as names may come again, its id.
func label(m *Member) string {
	if m.Name == "" {
		return fmt.Sprintf("member %v", m.ID)
	}
	return fmt.Sprintf("%s (%v)", m.Name, m.ID)
}

func labels(members []*Member, one, many string) string {
	var all []string
	for _, m := range members {
		all = append(all, label(m))
	}
	if len(all) == 1 {
		return all[0] + " " + one
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1] + " " + many
}

func deadFor(members []*Member) string {
	return labels(members, "has", "have") + " been silent for " + about(members[0].Silent)
}

// about is d as people say it.
func about(d time.Duration) string {
	text := d.Truncate(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func behind(m *Member) string {
	if m.Behind == 0 {
		return "it has not answered yet"
	}
	return fmt.Sprintf("it is %d entries behind", m.Behind)
}
