package etcdapi_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
)

func campaign(name, value string, lease int64) func(lockpb.Message) {
	return func(m lockpb.Message) { named(name, lease)(m); m.With("value", []byte(value)) }
}

func byLeader(leader lockpb.Message, value string) func(lockpb.Message) {
	return func(m lockpb.Message) {
		m.With("leader", leader)
		if value != "" {
			m.With("value", []byte(value))
		}
	}
}

func electionOf(name string) func(lockpb.Message) {
	return func(m lockpb.Message) { m.With("name", []byte(name)) }
}

func TestElection(t *testing.T) {
	s := newSessions(t)
	_, err := s.call(t.Context(), "Leader", electionOf("e"))
	wantStatus(t, err, codes.Unknown, "election: no leader")
	first, second := s.lease(), s.lease()
	leader, _ := s.good("Campaign", campaign("e", "one", first)).Sub("leader")
	if string(leader.Bytes("key")) != "e/"+hex(first) || leader.Int64("rev") != 2 || leader.Int64("lease") != first || string(leader.Bytes("name")) != "e" {
		t.Errorf("the leader is %v", leader)
	}
	waiting := s.start(t.Context(), "Campaign", "e/"+hex(second), campaign("e", "two", second))
	s.good("Proclaim", byLeader(leader, "still one"))
	if kv, _ := s.good("Leader", electionOf("e")).Sub("kv"); string(kv.Bytes("value")) != "still one" {
		t.Errorf("the leader says %v", kv)
	}
	// Who campaigns again changes its value.
	s.good("Campaign", campaign("e", "one again", first))
	if kv, _ := s.good("Leader", electionOf("e")).Sub("kv"); string(kv.Bytes("value")) != "one again" {
		t.Errorf("the leader says %v", kv)
	}
	s.good("Resign", byLeader(leader, ""))
	if got := <-waiting; got.err != nil {
		t.Fatal(got.err)
	}
	_, err = s.call(t.Context(), "Proclaim", byLeader(leader, "x"))
	wantStatus(t, err, codes.Unknown, "election: not leader")
	s.good("Resign", byLeader(leader, "")) // it is no error
	if kv, _ := s.good("Leader", electionOf("e")).Sub("kv"); string(kv.Bytes("value")) != "two" {
		t.Errorf("the leader says %v", kv)
	}
}

func TestElectionErrors(t *testing.T) {
	s := newSessions(t)
	for _, method := range []string{"Proclaim", "Resign"} {
		_, err := s.call(t.Context(), method, func(lockpb.Message) {})
		wantStatus(t, err, codes.Unknown, `"leader" field must be provided`)
	}
	_, err := s.call(t.Context(), "Campaign", campaign("e", "v", 99))
	wantStatus(t, err, codes.Unknown, "etcdserver: requested lease not found")
	// A candidate whose key is gone does not lead.
	first, second := s.lease(), s.lease()
	s.good("Campaign", campaign("e", "one", first))
	waiting := s.start(t.Context(), "Campaign", "e/"+hex(second), campaign("e", "two", second))
	s.delete([]byte("e/" + hex(second)))
	s.delete([]byte("e/" + hex(first)))
	wantStatus(t, (<-waiting).err, codes.Unknown, "election: not leader")
}

func TestCampaignGivenUp(t *testing.T) {
	s := newSessions(t)
	first, second := s.lease(), s.lease()
	s.good("Campaign", campaign("e", "one", first))
	ctx, cancel := context.WithCancel(t.Context())
	waiting := s.start(ctx, "Campaign", "e/"+hex(second), campaign("e", "two", second))
	cancel()
	<-waiting
	s.until("e/"+hex(second), false)
}

// TestObserve sees every value in order, over changes of the leader and
// compactions.
func TestObserve(t *testing.T) {
	s := newSessions(t)
	observe := s.schema.Election.Methods().ByName("Observe")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, lockpb.FullMethod(observe))
	if err != nil {
		t.Fatal(err)
	}
	in := lockpb.NewMessage(observe.Input()).With("name", []byte("e"))
	if err := stream.SendMsg(in.Interface()); err != nil {
		t.Fatal(err)
	}
	want := func(value string) {
		t.Helper()
		m := lockpb.NewMessage(observe.Output())
		if err := stream.RecvMsg(m.Interface()); err != nil {
			t.Fatal(err)
		}
		kv, _ := m.Sub("kv")
		header, _ := m.Sub("header")
		if string(kv.Bytes("value")) != value || header.Int64("revision") < kv.Int64("mod_revision") {
			t.Fatalf("%v, want %s", m, value)
		}
	}
	lease := s.lease()
	key := []byte("e/" + hex(lease))
	leader, _ := s.good("Campaign", campaign("e", "one", lease)).Sub("leader")
	want("one")
	for _, value := range []string{"two", "three"} {
		s.good("Proclaim", byLeader(leader, value))
		want(value)
	}
	if _, err := s.store.Compact(t.Context(), kv.Revision(put(t, s.store, "other", "x"))); err != nil {
		t.Fatal(err)
	}
	s.good("Proclaim", byLeader(leader, "four"))
	want("four")
	// Who leads next has written its value before the last one of the leader.
	second := s.lease()
	waiting := s.start(t.Context(), "Campaign", "e/"+hex(second), campaign("e", "six", second))
	s.good("Proclaim", byLeader(leader, "five"))
	want("five")
	s.delete(key)
	want("six")
	if got := <-waiting; got.err != nil {
		t.Fatal(got.err)
	}
	s.delete([]byte("e/" + hex(second)))
	s.good("Campaign", campaign("e", "seven", s.lease()))
	want("seven")
}
