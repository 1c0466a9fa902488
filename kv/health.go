package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Health is what an [Overview] means for a person.
type Health struct {
	// Summary is one sentence, and Next the next step, empty where there is
	// nothing to do.
	Summary, Next string
	// Notes name what else is not as it should be.
	Notes []string
	// Voters counts the members that vote, Up those of them that are up.
	Voters, Up int
	// Survives is how many more voters may fail; -1 while there is no leader.
	Survives int
}

// Serving tells that writes and linearizable reads are answered.
func (h *Health) Serving() bool { return h.Survives >= 0 }

// slowBy is how far behind a member is worth a note.
const (
	slowBy    = 5 * time.Second
	slowByLag = 10_000
)

// Health judges.
func (o *Overview) Health() Health {
	h := Health{Survives: -1, Notes: o.notes()}
	var silent []*MemberOverview
	for i := range o.Members {
		m := &o.Members[i]
		if m.Learner {
			continue
		}
		h.Voters++
		if m.Up() {
			h.Up++
		} else {
			silent = append(silent, m)
		}
	}
	need := h.Voters/2 + 1
	switch {
	case h.Up < need:
		h.Summary = fmt.Sprintf("no majority: %d of %d voters %s and %d are needed: %s",
			h.Up, h.Voters, verb(h.Up, "answers", "answer"), need, absence(silent))
		h.Next = "start " + join(names(silent), "or") + " again; where a majority of the disks is lost for good, 'concord cluster recover' says what can be kept"
	case o.Leader == 0:
		h.Summary = fmt.Sprintf("no leader: %d of %d voters %s, and an election is under way", h.Up, h.Voters, verb(h.Up, "answers", "answer"))
		h.Next = "ask again in a few seconds; where it stays so, see whether the members reach each other at their peer addresses"
	default:
		h.Survives = h.Up - need
		h.Summary = fmt.Sprintf("%d of %d voters, survives %d %s", h.Up, h.Voters, h.Survives, verb(h.Survives, "failure", "failures"))
		if len(silent) > 0 {
			h.Summary += ": " + absence(silent)
			h.Next = fmt.Sprintf("start %s again, or take it out for good with 'concord cluster remove %s'", join(names(silent), "and"), silent[0].Label())
		} else if h.Voters < 3 {
			h.Next = fmt.Sprintf("with %d more %s the cluster survives a failure", 3-h.Voters, verb(3-h.Voters, "voter", "voters"))
		}
	}
	return h
}

// toldOtherwise are conditions of members that a Health has words of its own
// for.
var toldOtherwise = []string{"leader", "caught_up", "disk_writes", "disk_space", "memory"}

// then is the next step, behind a reason.
func (c *Condition) then() string {
	if c.Next == "" {
		return ""
	}
	return "; " + c.Next
}

// notes names what is wrong beside members that vote and do not answer.
func (o *Overview) notes() (notes []string) {
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	for _, a := range o.Alarms {
		if a.Type == AlarmDivergent {
			add("the state of %s differs from that of a majority, and it does not serve; stop it, and start it with 'concord serve --rejoin'", o.label(a.Member))
			continue
		}
		add("alarm %v was raised for %s; once its cause is gone, clear it with 'etcdctl alarm disarm'", a.Type, o.label(a.Member))
	}
	var versions []string
	for i := range o.Members {
		m := &o.Members[i]
		if m.Report == nil {
			switch {
			case m.Connected:
				add("%s is connected and does not answer: %s", m.Label(), m.Err)
			case m.Learner:
				add("%s, which does not vote, %s", m.Label(), silence(m))
			}
			continue
		}
		if m.Report.DiskFull {
			add("the disk of %s is full, and puts are refused there; free some of it", m.Label())
		}
		if m.Report.DiskStalled {
			add("the disk of %s does not finish its writes; see what holds it up, or replace it", m.Label())
		}
		if m.Report.MemoryFull {
			add("the memory limit of %s is reached, and writes that make the state larger are refused; delete keys, or give it more memory", m.Label())
		}
		for _, c := range m.Report.Wrong {
			if !slices.Contains(toldOtherwise, c.Name) {
				add("%s: %s%s", m.Label(), c.Reason, c.then())
			}
		}
		if m.Behind > slowBy || m.Lag > slowByLag {
			add("%s is %d entries (%v) behind the leader", m.Label(), m.Lag, m.Behind.Round(100*time.Millisecond))
		}
		if v := m.Report.Version; !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	if a, b := o.divergent(); a != nil {
		add("%s and %s have applied entry %d and differ; stop the one that is wrong, and start it with 'concord serve --rejoin'", a.Label(), b.Label(), a.Report.Applied)
	}
	if len(versions) > 1 {
		add("the members run versions %s; upgrade the older ones", join(versions, "and"))
	}
	return notes
}

// divergent are two members that differ at one index, or nil.
func (o *Overview) divergent() (a, b *MemberOverview) {
	at := map[Index]*MemberOverview{}
	for i := range o.Members {
		m := &o.Members[i]
		if m.Report == nil {
			continue
		}
		if other := at[m.Report.Applied]; other != nil && other.Report.Hash != m.Report.Hash {
			return other, m
		}
		at[m.Report.Applied] = m
	}
	return nil, nil
}

func (o *Overview) label(id MemberID) string {
	for i := range o.Members {
		if o.Members[i].ID == id {
			return o.Members[i].Label()
		}
	}
	return id.String()
}

// MayRemove returns nil when the other members would keep their majority without
// id, and else an error that names why not and what to do. It returns
// [ErrMemberNotFound] where there is no such member.
func (o *Overview) MayRemove(id MemberID) error {
	var gone *MemberOverview
	var silent []*MemberOverview
	voters, up := 0, 0
	for i := range o.Members {
		switch m := &o.Members[i]; {
		case m.ID == id:
			gone = m
		case m.Learner:
		case m.Up():
			voters, up = voters+1, up+1
		default:
			voters++
			silent = append(silent, m)
		}
	}
	switch {
	case gone == nil:
		return WithNext(Errorf(NotFound, "no member has the id %v: %w", id, ErrMemberNotFound), "'concord cluster members' lists them")
	case gone.Learner:
		return nil
	case voters == 0:
		return WithNext(Errorf(FailedPrecondition, "%s is the only member that votes; nothing was done", gone.Label()),
			"promote another one first; to end the cluster, stop the member and delete its directory")
	case up < voters/2+1:
		return WithNext(Errorf(FailedPrecondition, "without %s, %d of %d voters would answer and %d be needed: %s; nothing was done",
			gone.Label(), up, voters, voters/2+1, absence(silent)),
			fmt.Sprintf("start %s again, or remove %s first", join(names(silent), "and"), silent[0].Label()))
	}
	return nil
}

// Retire removes a member from c for good, as [Overview.MayRemove] allows.
// Leadership is moved away from it first.
func Retire(ctx context.Context, c Cluster, id MemberID) error {
	overseer, ok := c.(Overseer)
	if !ok {
		return ErrUnsupported
	}
	o, err := overseer.Overview(ctx)
	if err != nil {
		return err
	}
	if err := o.MayRemove(id); err != nil {
		return err
	}
	if h := o.Health(); !h.Serving() {
		return WithNext(Errorf(Unavailable, "%s; nothing was done: %w", h.Summary, ErrNoLeader), h.Next)
	}
	if o.Leader == id {
		if err := c.MoveLeader(ctx, 0); err != nil {
			return fmt.Errorf("move leadership away: %w", err)
		}
	}
	return c.RemoveMember(ctx, id)
}

// absence says of members that they do not answer.
func absence(silent []*MemberOverview) string {
	parts := make([]string, len(silent))
	for i, m := range silent {
		parts[i] = m.Label() + " " + silence(m)
	}
	return join(parts, "and")
}

func silence(m *MemberOverview) string {
	if m.Silent < time.Second {
		return "does not answer"
	}
	return "has not answered for " + About(m.Silent)
}

// About writes a duration as people say it: in its two largest units, 2m5s or
// 3d4h.
func About(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		n := d / u.size
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("%d%s", n, u.name)
		if i+1 < len(units) {
			if rest := d % u.size / units[i+1].size; rest > 0 {
				text += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return d.Round(time.Millisecond).String()
}

func names(members []*MemberOverview) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.Label()
	}
	return out
}

// join lists parts with a word before the last one.
func join(parts []string, word string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	last := len(parts) - 1
	return strings.Join(parts[:last], ", ") + " " + word + " " + parts[last]
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
