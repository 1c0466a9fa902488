package machine

import (
	"reflect"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

func TestMembers(t *testing.T) {
	d := start(t)
	add := func(id kv.MemberID, addr string) any {
		return d.change(MemberChange{AddMember, kv.Member{ID: id, PeerAddrs: []string{addr}, Learner: true}})
	}
	if err, failed := add(2, "h2:1").(error); failed {
		t.Fatal(err)
	}
	wantError(t, add(2, "h3:1"), kv.ErrMemberExists)
	wantError(t, add(3, "h2:1"), kv.ErrMemberExists)
	if _, failed := add(0, "h3:1").(error); !failed {
		t.Fatal("a member got id 0")
	}
	wantError(t, d.change(MemberChange{PromoteMember, kv.Member{ID: 1}}), kv.ErrNotLearner)
	wantError(t, d.change(MemberChange{RemoveMember, kv.Member{ID: 9}}), kv.ErrMemberNotFound)
	if err, failed := d.change(MemberChange{RemoveMember, kv.Member{ID: 1}}).(error); !failed || kv.CodeOf(err) != kv.FailedPrecondition {
		t.Fatalf("the last voter was removed: %v", err)
	}
	// All or nothing.
	if _, failed := d.change(MemberChange{PromoteMember, kv.Member{ID: 2}}, MemberChange{RemoveMember, kv.Member{ID: 9}}).(error); !failed || !d.Members()[1].Learner {
		t.Fatal("half of a change was made")
	}
	if err, failed := d.change(MemberChange{PromoteMember, kv.Member{ID: 2}}, MemberChange{RemoveMember, kv.Member{ID: 1}}).(error); failed {
		t.Fatal(err)
	}
	d.restart()
	if !d.Removed(1) || d.Removed(2) {
		t.Fatal("removed ids are forgotten")
	}
	wantError(t, add(1, "h1:1"), kv.ErrMemberExists)
	update := kv.Member{ID: 2, Name: "two", ClientAddrs: []string{"h2:2"}}
	if err, failed := d.apply(EncodeUpdateMember(nil, update)).(error); failed {
		t.Fatal(err)
	}
	wantError(t, d.apply(EncodeUpdateMember(nil, kv.Member{ID: 1})), kv.ErrMemberNotFound)
	if err, failed := d.apply(EncodeUpdateMember(nil, kv.Member{ID: 2, Name: string(make([]byte, maxMemberBytes))})).(error); !failed || kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a name without bounds: %v", err)
	}
	want := []kv.Member{{ID: 2, Name: "two", PeerAddrs: []string{"h2:1"}, ClientAddrs: []string{"h2:2"}}}
	if got := d.Members(); !reflect.DeepEqual(got, want) {
		t.Fatalf("members %+v", got)
	}
	// Membership is changed by configuration changes only.
	smuggled := append([]byte{byte(kindMembers), 0}, EncodeMembers(nil, MemberChange{RemoveMember, kv.Member{ID: 2}})...)
	if err, failed := d.apply(smuggled).(error); !failed || kv.CodeOf(err) != kv.InvalidArgument {
		t.Fatalf("a command removed a member: %v", err)
	}
	d.Members()[0].PeerAddrs[0] = "changed"
	if d.Members()[0].PeerAddrs[0] != "h2:1" {
		t.Fatal("a caller changed the member table")
	}
	d.index++
	if h, ok := d.ApplyMembers(d.at(), nil).(*kv.Header); !ok || h.Revision != 1 {
		t.Fatalf("an empty change gave %v", h)
	}
}

func TestSettings(t *testing.T) {
	d := start(t)
	on, off, age, size, voters := true, false, time.Hour, int64(77), 5
	d.apply(EncodeSettings(nil, SettingsChange{LeaderReads: &on, Autopilot: &off}))
	want := DefaultSettings()
	want.LeaderReads, want.Autopilot = true, false
	if got := d.Settings(); got != want {
		t.Fatalf("settings %+v", got)
	}
	d.apply(EncodeSettings(nil, SettingsChange{Retention: &age, HistoryBytes: &size}))
	want.Retention, want.HistoryBytes = age, size
	d.apply(EncodeSettings(nil, SettingsChange{Voters: &voters, DeadAfter: &age}))
	want.Voters, want.DeadAfter = voters, age
	d.restart()
	if got := d.View().Settings(); got != want {
		t.Fatalf("settings %+v", got)
	}
}

// History is let go by age and by size, also after a restart.
func TestRetention(t *testing.T) {
	d := start(t)
	for i := range 100 {
		d.time = int64(i+1) * 10_000
		d.put("k", string(make([]byte, 1<<20)))
	}
	for range 2 {
		if got := d.RevisionAt(kv.Time(d.time)); got != 101 {
			t.Fatalf("now is revision %d", got)
		}
		if got := d.RevisionAt(kv.Time(d.time - 600_000)); got != 41 {
			t.Fatalf("ten minutes ago was revision %d", got)
		}
		if got := d.RevisionAt(9000); got != 1 {
			t.Fatalf("before the first put was revision %d", got)
		}
		if got := d.RevisionAt(-1); got != 0 {
			t.Fatalf("before the cluster was revision %d", got)
		}
		if got := d.RevisionWithin(10 << 20); got < 92 || got > 93 {
			t.Fatalf("10 MiB ago was revision %d", got)
		}
		if got := d.RevisionWithin(1 << 30); got != 0 {
			t.Fatalf("1 GiB ago was revision %d", got)
		}
		d.restart()
	}
	d.apply(EncodeCompact(nil, 92))
	if got := d.RevisionAt(kv.Time(d.time - 600_000)); got != 0 || d.CompactRevision() != 92 {
		t.Fatalf("compacted history has revision %d", got)
	}
	if age, size := d.Retention(); age != 10*time.Minute || size != 256<<20 {
		t.Fatalf("retention %v, %d", age, size)
	}
}

func TestSamplesAreBounded(t *testing.T) {
	var h history
	for i := range 100_000 {
		h.sample(kv.Time(i)*sampleTime, kv.Revision(i+1), int64(i)*1000)
		if len(h.samples) > maxSamples {
			t.Fatalf("%d samples", len(h.samples))
		}
	}
	for _, age := range []int{0, 10, 60} {
		if got := h.at(kv.Time(99_999-age) * sampleTime); int(got) != 100_000-age {
			t.Errorf("%d samples ago is revision %d", age, got)
		}
	}
}
