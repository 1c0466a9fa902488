package machine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// newer starts a machine whose program understands level 2, in which an alarm is
// a new command.
func newer(t *testing.T) *driver {
	d := start(t)
	levels := kindLevels
	levels[kindAlarm] = 2
	d.options.Level, d.levels = 2, &levels
	return d
}

func (d *driver) tell(id kv.MemberID, level uint32) any {
	return d.apply(EncodeUpdateMember(nil, kv.Member{ID: id, Name: "n", Level: level, Version: "1.2.3"}))
}

func (d *driver) raise(level uint32) { d.apply(EncodeSettings(nil, SettingsChange{Level: &level})) }

// A command is proposed only when all members understand it.
func TestNewCommandWaitsForAll(t *testing.T) {
	d := newer(t)
	d.change(MemberChange{AddMember, kv.Member{ID: 2, Name: "old", PeerAddrs: []string{"h2:1"}, Level: 1, Version: "1.1.0"}})
	d.change(MemberChange{AddMember, kv.Member{ID: 3, PeerAddrs: []string{"h3:1"}, Learner: true}}) // reserved, never started
	alarm := EncodeAlarm(nil, kv.Alarm{Member: 1, Type: 1}, true)
	for _, told := range []kv.MemberID{1, 2} {
		if err := d.Proposable(alarm); !errors.Is(err, kv.ErrUnsupported) || d.Level() != 1 {
			t.Fatalf("a new command may be proposed at level %d: %v", d.Level(), err)
		}
		if err, failed := d.tell(told, 2).(error); failed {
			t.Fatal(err)
		}
		if told == 1 {
			d.raise(2) // it has no effect: a member is older
		}
	}
	if d.Level() != 1 || d.Lowest() != 2 {
		t.Fatalf("level %d of %d", d.Level(), d.Lowest())
	}
	d.raise(7)
	if err := d.Proposable(alarm); err != nil || d.Level() != 2 {
		t.Fatalf("level %d: %v", d.Level(), err)
	}
	d.raise(1)
	if d.Level() != 2 {
		t.Fatal("the level fell")
	}
	if got := *d.apply(alarm).(*bool); !got {
		t.Fatal("the new command did nothing")
	}
	unknown := []byte{250, 0}
	if err := d.Proposable(unknown); !errors.Is(err, kv.ErrUnsupported) {
		t.Fatalf("an unknown command may be proposed: %v", err)
	}
}

// Who understands less than the cluster does not take part.
func TestOlderProgramIsRefused(t *testing.T) {
	d := newer(t)
	d.tell(1, 2)
	d.raise(2)
	var level *LevelError
	for name, result := range map[string]any{
		"to join":      d.change(MemberChange{AddMember, kv.Member{ID: 2, Name: "old", Level: 1, Learner: true}}),
		"to come back": d.tell(1, 1),
	} {
		if err, _ := result.(error); !errors.As(err, &level) || kv.CodeOf(err) != kv.Unsupported {
			t.Errorf("an older program is allowed %s: %v", name, result)
		}
	}
	var b bytes.Buffer
	write, release := d.Snapshot()
	defer release()
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	old := New(Options{Level: 1})
	defer old.Close()
	if err := old.Restore(&b); !errors.As(err, &level) || level.Cluster != 2 || level.Program != 1 {
		t.Errorf("an older program starts: %v", err)
	}
	again := newer(t)
	again.tell(1, 2)
	again.options.Level = 1
	defer func() {
		if e, ok := recover().(*LevelError); !ok || e.Cluster != 2 {
			t.Errorf("an older program goes on: %v", e)
		}
	}()
	again.raise(2)
}

// A member that lost its disk learns beside its old identity, and takes its vote.
func TestTwins(t *testing.T) {
	d := start(t)
	member := func(id kv.MemberID, name string, learner bool) kv.Member {
		return kv.Member{ID: id, Name: name, PeerAddrs: []string{"h2:1"}, Learner: learner}
	}
	must := func(changes ...MemberChange) {
		t.Helper()
		if err, failed := d.change(changes...).(error); failed {
			t.Fatal(err)
		}
	}
	must(MemberChange{AddMember, member(2, "b", false)})
	wantError(t, d.change(MemberChange{AddMember, member(3, "b", false)}), kv.ErrMemberExists)
	wantError(t, d.change(MemberChange{AddMember, member(3, "c", true)}), kv.ErrMemberExists)
	wantError(t, d.change(MemberChange{AddMember, member(3, "", true)}), kv.ErrMemberExists)
	must(MemberChange{AddMember, member(3, "b", true)})
	wantError(t, d.change(MemberChange{AddMember, member(4, "b", true)}), kv.ErrMemberExists)
	wantError(t, d.change(MemberChange{PromoteMember, kv.Member{ID: 3}}), kv.ErrMemberExists)
	wantError(t, d.apply(EncodeUpdateMember(nil, kv.Member{ID: 3, Name: "c"})), kv.ErrMemberExists)
	if err, failed := d.apply(EncodeUpdateMember(nil, member(3, "b", true))).(error); failed {
		t.Fatal(err)
	}
	// Once more without a disk, before the first identity had caught up.
	must(MemberChange{RemoveMember, kv.Member{ID: 3}}, MemberChange{AddMember, member(4, "b", true)})
	must(MemberChange{PromoteMember, kv.Member{ID: 4}}, MemberChange{RemoveMember, kv.Member{ID: 2}})
	if m := d.Members(); len(m) != 2 || m[1].ID != 4 || m[1].Learner {
		t.Fatalf("members %+v", m)
	}
}

func TestVoterTarget(t *testing.T) {
	for founders, want := range map[int]int{0: 3, 1: 3, 4: 3, 5: 5, 8: 5} {
		m := New(Options{})
		m.Bootstrap(1, make([]kv.Member, founders))
		if got := m.VoterTarget(); got != want {
			t.Errorf("%d founders: %d voters", founders, got)
		}
		m.Close()
	}
	d := start(t)
	seven := 7
	d.apply(EncodeSettings(nil, SettingsChange{Voters: &seven}))
	d.restart()
	if d.VoterTarget() != 7 {
		t.Errorf("%d voters are wanted", d.VoterTarget())
	}
}
