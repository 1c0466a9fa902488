package concord

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// heard waits for the next event.
func heardEvent[E observe.Event](t *testing.T, s *observe.Subscription) (e E) {
	t.Helper()
	select {
	case got := <-s.Events():
		e, ok := got.(E)
		if !ok {
			t.Fatalf("got %T %+v", got, got)
		}
		return e
	case <-time.After(30 * time.Second):
		t.Fatalf("no %T came", e)
	}
	return e
}

// toldCall is a call and what is to be told of it.
type toldCall struct {
	name, level, result string
	keys                int
	ttl, condition      bool
	call                func(ctx context.Context) error
}

func txnOf(n *Node, t kv.Txn) func(context.Context) error {
	return func(ctx context.Context) error { _, err := n.Txn(ctx, t); return err }
}

func putOp(key string) kv.Op { return kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: []byte("value")} }
func delOp(key string) kv.Op { return kv.Op{Kind: kv.OpDelete, Key: []byte(key)} }
func getOp(key string) kv.Op { return kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte(key)}} }

func toldWrites(n *Node) []toldCall {
	absent := []kv.Compare{{Key: []byte("absent"), Target: kv.CompareVersion}}
	return []toldCall{
		{"api.put", "", "ok", 1, false, false, txnOf(n, kv.Txn{Success: []kv.Op{putOp("a")}})},
		{"api.put", "", "ok", 1, true, false, func(ctx context.Context) error {
			_, err := n.Put(ctx, "b", "v", kv.WithTTL(time.Hour))
			return err
		}},
		{"api.put", "", "invalid argument", 1, false, false, txnOf(n, kv.Txn{Success: []kv.Op{putOp("")}})},
		{"api.put_if", "", "ok", 1, false, true, txnOf(n, kv.Txn{Compare: absent, Success: []kv.Op{putOp("c")}})},
		{"api.put_many", "", "ok", 2, false, false, txnOf(n, kv.Txn{Success: []kv.Op{putOp("d"), putOp("e")}})},
		{"api.delete", "", "ok", 1, false, false, txnOf(n, kv.Txn{Success: []kv.Op{delOp("d")}})},
		{"api.delete_if", "", "ok", 2, false, true, txnOf(n, kv.Txn{Compare: absent, Success: []kv.Op{delOp("e")}, Failure: []kv.Op{getOp("e")}})},
		{"api.delete_many", "", "ok", 2, false, false, txnOf(n, kv.Txn{Success: []kv.Op{delOp("x"), delOp("y")}})},
		{"api.txn", "", "ok", 2, false, false, txnOf(n, kv.Txn{Success: []kv.Op{putOp("f"), getOp("f")}})},
		{"api.txn", "", "ok", 2, false, true, txnOf(n, kv.Txn{Compare: absent, Success: []kv.Op{putOp("g")}, Failure: []kv.Op{delOp("g")}})},
	}
}

// toldReads are the calls after toldWrites.
func toldReads(n *Node) []toldCall {
	lease := kv.LeaseID(7)
	return []toldCall{
		{"api.get_many", "strong", "ok", 2, false, false, txnOf(n, kv.Txn{Success: []kv.Op{getOp("a"), getOp("b")}})},
		{"api.get", "strong", "ok", 1, false, false, func(ctx context.Context) error {
			_, err := n.Get(ctx, "a", kv.Strong)
			return err
		}},
		{"api.get", "eventual", "not found", 0, false, false, func(ctx context.Context) error {
			_, err := n.Get(ctx, "absent", kv.Eventual)
			return err
		}},
		{"api.get", "leader", "ok", 1, false, false, func(ctx context.Context) error {
			_, err := n.Range(ctx, kv.Range{Key: []byte("a"), Level: kv.Leader})
			return err
		}},
		{"api.range", "strong", "ok", 5, false, false, func(ctx context.Context) error {
			_, err := n.Range(ctx, kv.Range{Key: []byte("a"), End: []byte("z")})
			return err
		}},
		{"api.lease_grant", "", "ok", 0, true, false, func(ctx context.Context) error {
			_, err := n.Grant(ctx, kv.Grant{ID: lease, TTL: time.Minute})
			return err
		}},
		{"api.lease_keep_alive", "", "ok", 0, false, false, func(ctx context.Context) error {
			_, err := n.KeepAlive(ctx, lease)
			return err
		}},
		{"api.lease_ttl", "strong", "ok", 0, false, false, func(ctx context.Context) error {
			_, err := n.TimeToLive(ctx, lease, true)
			return err
		}},
		{"api.leases", "strong", "ok", 1, false, false, func(ctx context.Context) error {
			_, err := n.Leases(ctx)
			return err
		}},
		{"api.lease_revoke", "", "ok", 0, false, false, func(ctx context.Context) error {
			_, err := n.Revoke(ctx, lease)
			return err
		}},
		{"api.compact", "", "ok", 0, false, false, func(ctx context.Context) error {
			_, err := n.Compact(ctx, 3)
			return err
		}},
		{"api.compact", "", "out of range", 0, false, false, func(ctx context.Context) error {
			_, err := n.Compact(ctx, 1)
			return err
		}},
	}
}

// TestEveryCallIsTold: each method that a client can call gives one event, with
// its name, level and result.
func TestEveryCallIsTold(t *testing.T) {
	n, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range observe.Names() {
		if strings.HasPrefix(name, "api.") {
			names = append(names, name)
		}
	}
	s, err := n.Subscribe(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range append(toldWrites(n), toldReads(n)...) {
		began := time.Now()
		err := test.call(t.Context())
		e := heardEvent[observe.API](t, s)
		if e.Name() != test.name || e.Level != test.level || e.Result != test.result {
			t.Errorf("%s: the event is %s at level %q with result %q; the error is %v", test.name, e.Name(), e.Level, e.Result, err)
		}
		if (err == nil) != (e.Result == "ok") {
			t.Errorf("%s: the result is %q, the error %v", test.name, e.Result, err)
		}
		if e.Keys != test.keys || e.HasTTL != test.ttl || e.HasCondition != test.condition {
			t.Errorf("%s: %d keys, TTL %t, condition %t", test.name, e.Keys, e.HasTTL, e.HasCondition)
		}
		if e.Start.Before(began) || e.Duration <= 0 || err == nil && e.Revision <= 0 && e.Name() != "api.get" {
			t.Errorf("%s: began %v after the call, took %v, revision %d", test.name, e.Start.Sub(began), e.Duration, e.Revision)
		}
		p := e.Phases
		switch wrote := test.level == "" && err == nil; {
		case !wrote && e.Result != "out of range" && p != (observe.Phases{}):
			t.Errorf("%s: phases of what was not applied: %+v", test.name, p)
		case wrote && (p.Queued <= 0 || p.Logged < p.Queued || p.Committed < p.Logged || p.Applied < p.Committed || p.Answered < p.Applied || p.Answered != e.Duration):
			t.Errorf("%s: phases %+v", test.name, p)
		}
		select {
		case more := <-s.Events():
			t.Errorf("%s: then %s came", test.name, more.Name())
		default:
		}
	}
}

func TestSubscribeToWhatThereIsNot(t *testing.T) {
	n, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Subscribe(t.Context(), "api.nothing"); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := n.Subscribe(ctx); err != nil || !n.figures.events.calls.Load() {
		t.Errorf("got %v", err)
	}
	cancel()
	for n.figures.events.calls.Load() {
		select {
		case <-t.Context().Done():
			t.Fatal("the subscription stays")
		case <-time.After(time.Millisecond):
		}
	}
}

// TestAPanicOfAnObserver: it stays the observer's.
func TestAPanicOfAnObserver(t *testing.T) {
	var log bytes.Buffer
	n, err := Open(t.Context(), t.TempDir(), Logger(slog.New(slog.NewTextHandler(&log, nil))), Observe(observe.Observer{
		API:   func(observe.API) { panic("of the observer") },
		State: func(observe.State) { panic("of the observer") },
		Disk:  func(observe.Disk) { panic("of the observer") },
		Apply: func(observe.Apply) { panic("of the observer") },
	}))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := n.Put(t.Context(), "key", "value"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(n.Err(), n.Close()); err != nil {
		t.Error(err)
	}
	if strings.Count(log.String(), "an observer panicked") != 1 {
		t.Errorf("the log:\n%s", log.String())
	}
	if n.figures.events.hub.Panics() < 10 {
		t.Errorf("%d panics", n.figures.events.hub.Panics())
	}
}

// TestSlowRequestsAreLogged: with the times of their parts, and nothing of what
// they say.
func TestSlowRequestsAreLogged(t *testing.T) {
	var log bytes.Buffer
	n, err := Open(t.Context(), t.TempDir(), Logger(slog.New(slog.NewTextHandler(&log, nil))), SlowRequests(time.Nanosecond))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Put(t.Context(), "the-secret-key", "the-secret-value"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(t.Context(), "the-secret-key", kv.Strong); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log has a key or a value:\n%s", log.String())
	}
	lines := 0
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, `msg="slow request"`) {
			continue
		}
		lines++
		want := []string{"op=get", "took=", "result=ok", "keys=1", "bytes=14", "level=strong"}
		if lines == 1 {
			want = []string{"op=put", "took=", "result=ok", "keys=1", "bytes=", "queued=", "logged=", "committed=", "applied="}
		}
		for _, w := range want {
			if !strings.Contains(line, w) {
				t.Errorf("line %d has no %q: %s", lines, w, line)
			}
		}
	}
	if lines != 2 {
		t.Errorf("%d lines of slow requests:\n%s", lines, log.String())
	}
}

// TestTracesAreTold: in the event of the call, and by the member that has applied
// it; only where somebody asks for them.
func TestTracesAreTold(t *testing.T) {
	var calls []observe.API
	var proposals []observe.Proposal
	n, err := Open(t.Context(), t.TempDir(), Observe(observe.Observer{
		API:      func(e observe.API) { calls = append(calls, e) },
		Proposal: func(e observe.Proposal) { proposals = append(proposals, e) },
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	trace := observe.NewTrace([]byte("a trace"))
	if _, err := n.Put(observe.WithTrace(t.Context(), trace), "key", "value"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Put(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
	if len(calls) != 2 || calls[0].Trace != trace || !calls[1].Trace.IsZero() {
		t.Errorf("calls: %+v", calls)
	}
	if len(proposals) != 1 || proposals[0].Trace != trace || proposals[0].Member != uint64(n.id) || proposals[0].Role != "leader" ||
		proposals[0].Term == 0 || proposals[0].Index == 0 || proposals[0].Phases.Logged <= 0 || proposals[0].Phases.Applied < proposals[0].Phases.Committed {
		t.Errorf("proposals: %+v", proposals)
	}
}
