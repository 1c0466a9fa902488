package kv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// overviewOf makes an overview of members that lead by n1: each is written as
// its name, followed by "!" when it does not answer, "~" when only the leader
// hears it, and "?" when it is a learner.
func overviewOf(members ...string) *Overview {
	o := &Overview{Leader: 1}
	for i, text := range members {
		m := MemberOverview{Member: Member{ID: MemberID(i + 1), Name: strings.TrimRight(text, "!~?"), Learner: strings.Contains(text, "?")}}
		switch {
		case strings.Contains(text, "!"):
			m.Silent, m.Err = 2*time.Minute+5*time.Second, "refused"
		case strings.Contains(text, "~"):
			m.Connected, m.Err = true, "timeout"
		default:
			m.Report, m.Connected = &Report{Status: Status{Member: m.ID, Applied: 7, Hash: 1, Version: "1.0.0"}}, true
		}
		o.Members = append(o.Members, m)
	}
	return o
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		members       []string
		leader        MemberID
		summary, next string
		survives      int
		note          string
	}{
		{[]string{"n1", "n2", "n3"}, 1, "3 of 3 voters, survives 1 failure", "", 1, ""},
		{[]string{"n1", "n2", "n3", "n4", "n5"}, 1, "5 of 5 voters, survives 2 failures", "", 2, ""},
		{[]string{"n1", "n2", "n3!"}, 1, "2 of 3 voters, survives 0 failures: n3 has not answered for 2m5s", "start n3 again, or take it out for good with 'concord cluster remove n3'", 0, ""},
		{[]string{"n1", "n2", "n3~"}, 1, "3 of 3 voters, survives 1 failure", "", 1, "n3 is connected and does not answer: timeout"},
		{[]string{"n1", "n2!", "n3!"}, 0, "no majority: 1 of 3 voters answers and 2 are needed: n2 has not answered for 2m5s and n3 has not answered for 2m5s", "start n2 or n3 again;", -1, ""},
		{[]string{"n1", "n2!", "n3!"}, 1, "no majority: 1 of 3", "start n2 or n3 again;", -1, ""},
		{[]string{"n1", "n2", "n3!"}, 0, "no leader: 2 of 3 voters answer, and an election is under way", "ask again", -1, ""},
		{[]string{"n1"}, 1, "1 of 1 voters, survives 0 failures", "with 2 more voters the cluster survives a failure", 0, ""},
		{[]string{"n1", "n2"}, 1, "2 of 2 voters, survives 0 failures", "with 1 more voter", 0, ""},
		{[]string{"n1", "n2?!", "n3", "n4"}, 1, "3 of 3 voters, survives 1 failure", "", 1, "n2, which does not vote, has not answered for 2m5s"},
	} {
		o := overviewOf(c.members...)
		o.Leader = c.leader
		h := o.Health()
		if !strings.HasPrefix(h.Summary, c.summary) || !strings.HasPrefix(h.Next, c.next) || h.Next != "" && c.next == "" ||
			h.Survives != c.survives || h.Serving() != (c.survives >= 0) || strings.Join(h.Notes, ";") != c.note {
			t.Errorf("%v: %+v", c.members, h)
		}
	}
}

func TestHealthNotes(t *testing.T) {
	o := overviewOf("n1", "n2", "")
	if notes := o.Health().Notes; len(notes) > 0 {
		t.Fatalf("%q", notes)
	}
	o.Alarms = []Alarm{{Member: 2, Type: AlarmNoSpace}, {Member: 9, Type: AlarmCorrupt}}
	o.Members[0].Report.DiskFull = true
	o.Members[1].Report.DiskStalled = true
	o.Members[1].Report.Version = "0.9.0"
	o.Members[2].Report.Hash = 2
	o.Members[2].Lag, o.Members[2].Behind = 12, 6*time.Second
	notes := strings.Join(o.Health().Notes, "\n")
	for _, want := range []string{
		"alarm NOSPACE was raised for n2;", "alarm CORRUPT was raised for 9;", "the disk of n1 is full", "the disk of n2 does not finish its writes",
		"3 is 12 entries (6s) behind the leader", "n2 and 3 have applied entry 7 and differ", "versions 1.0.0 and 0.9.0",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is missing in:\n%s", want, notes)
		}
	}
	o.Members[2].Report.Applied = 8 // not comparable any more
	if notes := o.Health().Notes; slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "differ") }) {
		t.Errorf("members at different entries are compared: %q", notes)
	}
}

func TestMayRemove(t *testing.T) {
	for _, c := range []struct {
		members []string
		id      MemberID
		refused string // empty: allowed
		next    string
	}{
		{[]string{"n1", "n2", "n3"}, 1, "", ""},
		{[]string{"n1", "n2", "n3"}, 3, "", ""},
		{[]string{"n1", "n2", "n3!"}, 3, "", ""},
		{[]string{"n1", "n2", "n3~"}, 2, "", ""},
		{[]string{"n1", "n2", "n3!"}, 2, "without n2, 1 of 2 voters would answer and 2 be needed: n3 has not answered for 2m5s", "start n3 again, or remove n3 first"},
		{[]string{"n1", "n2", "n3", "n4!", "n5!"}, 2, "without n2, 2 of 4 voters would answer and 3 be needed: n4 has", "start n4 and n5 again, or remove n4 first"},
		{[]string{"n1", "n2", "n3", "n4!", "n5!"}, 4, "", ""},
		{[]string{"n1", "n2"}, 1, "", ""},
		{[]string{"n1", "n2?"}, 1, "n1 is the only member that votes", "promote another"},
		{[]string{"n1", "n2!", "n3?"}, 3, "", ""},
		{[]string{"n1"}, 5, "no member has the id 5", "'concord cluster members' lists them"},
	} {
		err := overviewOf(c.members...).MayRemove(c.id)
		if (err == nil) != (c.refused == "") || err != nil && (!strings.HasPrefix(err.Error(), c.refused) || !strings.HasPrefix(NextStep(err), c.next) || c.next == "") {
			t.Errorf("%v without %d: %v (%s)", c.members, c.id, err, NextStep(err))
		}
	}
	if err := new(Overview).MayRemove(1); !errors.Is(err, ErrMemberNotFound) || CodeOf(err) != NotFound {
		t.Errorf("%v", err)
	}
}

// retiring is a cluster that Retire can be called on.
type retiring struct {
	Cluster
	Overseer
	view *Overview
	done []string
	move error
}

func (r *retiring) Overview(context.Context) (Overview, error) { return *r.view, nil }
func (r *retiring) MoveLeader(context.Context, MemberID) error {
	r.done = append(r.done, "move")
	return r.move
}
func (r *retiring) RemoveMember(_ context.Context, id MemberID) error {
	r.done = append(r.done, "remove "+id.String())
	return nil
}

func TestRetire(t *testing.T) {
	for _, c := range []struct {
		members []string
		leader  MemberID
		id      MemberID
		move    error
		done    string
		err     error
	}{
		{[]string{"n1", "n2", "n3"}, 1, 2, nil, "remove 2", nil},
		{[]string{"n1", "n2", "n3"}, 2, 2, nil, "move,remove 2", nil},
		{[]string{"n1", "n2", "n3"}, 2, 2, ErrNotMoved, "move", ErrNotMoved},
		{[]string{"n1", "n2", "n3"}, 2, 7, nil, "", ErrMemberNotFound},
		{[]string{"n1", "n2!"}, 0, 2, nil, "", ErrNoLeader}, // fine without n2, but who would decide that?
	} {
		r := &retiring{view: overviewOf(c.members...), move: c.move}
		r.view.Leader = c.leader
		err := Retire(t.Context(), r, c.id)
		if !errors.Is(err, c.err) || strings.Join(r.done, ",") != c.done {
			t.Errorf("%v without %d: %v, %v", c.members, c.id, r.done, err)
		}
	}
	if err := Retire(t.Context(), struct{ Cluster }{}, 1); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

func TestAbout(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"2m5s": 125 * time.Second, "2m": 2 * time.Minute, "3d4h": 76*time.Hour + 5*time.Minute, "1h": time.Hour + 3*time.Second,
		"59s": 59*time.Second + time.Millisecond, "12ms": 12 * time.Millisecond, "0s": 0,
	} {
		if got := About(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
