package etcdapi_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// patience bounds every wait of these tests.
const patience = 2 * time.Minute

// sessions calls Lock and Election.
type sessions struct {
	t      *testing.T
	conn   *grpc.ClientConn
	schema *lockpb.Schema
	store  *kvtest.Model
}

func newSessions(t *testing.T) *sessions {
	m := model()
	return &sessions{t: t, conn: serve(t, m, leads, etcdapi.Options{}), schema: lockpb.New(), store: m}
}

// call calls a method with a request that set fills.
func (s *sessions) call(ctx context.Context, method string, set func(lockpb.Message)) (lockpb.Message, error) {
	m := s.schema.Lock.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		m = s.schema.Election.Methods().ByName(protoreflect.Name(method))
	}
	in, out := lockpb.NewMessage(m.Input()), lockpb.NewMessage(m.Output())
	set(in)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return out, s.conn.Invoke(ctx, lockpb.FullMethod(m), in.Interface(), out.Interface())
}

func (s *sessions) lease() int64 {
	s.t.Helper()
	res, err := s.store.Grant(s.t.Context(), kv.Grant{TTL: time.Hour})
	if err != nil {
		s.t.Fatal(err)
	}
	return int64(res.ID)
}

func named(name string, lease int64) func(lockpb.Message) {
	return func(m lockpb.Message) { m.With("name", []byte(name)).With("lease", lease) }
}

func (s *sessions) good(method string, set func(lockpb.Message)) lockpb.Message {
	s.t.Helper()
	m, err := s.call(s.t.Context(), method, set)
	if err != nil {
		s.t.Fatalf("%s: %v", method, err)
	}
	return m
}

// result is what a call in the background ended with.
type result struct {
	m   lockpb.Message
	err error
}

// start calls in the background and waits until the caller's key is there.
func (s *sessions) start(ctx context.Context, method, key string, set func(lockpb.Message)) <-chan result {
	s.t.Helper()
	done := make(chan result, 1)
	go func() {
		m, err := s.call(ctx, method, set)
		done <- result{m, err}
	}()
	s.until(key, true)
	return done
}

// until waits for a key to be there, or not.
func (s *sessions) until(key string, there bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	now, err := s.store.Range(ctx, kv.Range{Key: []byte(key)})
	if err != nil {
		s.t.Fatal(err)
	}
	if (now.Count > 0) == there {
		return
	}
	for batch, err := range s.store.Watch(ctx, kv.WatchRequest{Key: []byte(key), Start: now.Revision + 1}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if n := len(batch.Events); n > 0 && (batch.Events[n-1].Type == kv.PutEvent) == there {
			return
		}
	}
}

func (s *sessions) delete(key []byte) {
	s.t.Helper()
	if _, err := kv.Delete(s.t.Context(), s.store, key); err != nil {
		s.t.Fatal(err)
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if st := status.Convert(err); st.Code() != code || st.Message() != text {
		t.Errorf("%v %q, want %v %q", st.Code(), st.Message(), code, text)
	}
}

func TestLock(t *testing.T) {
	s := newSessions(t)
	first, second, third := s.lease(), s.lease(), s.lease()
	held := s.good("Lock", named("l", first))
	if key := held.Bytes("key"); string(key) != "l/"+hex(first) {
		t.Errorf("the key is %s", key)
	}
	again := s.good("Lock", named("l", first))
	if string(again.Bytes("key")) != string(held.Bytes("key")) {
		t.Errorf("locked twice: %v", again)
	}
	waiting := s.start(t.Context(), "Lock", "l/"+hex(second), named("l", second))
	last := s.start(t.Context(), "Lock", "l/"+hex(third), named("l", third))
	s.good("Unlock", func(m lockpb.Message) { m.With("key", held.Bytes("key")) })
	got := <-waiting
	if got.err != nil || string(got.m.Bytes("key")) != "l/"+hex(second) {
		t.Fatalf("the second: %v, %v", got.m, got.err)
	}
	if header, _ := got.m.Sub("header"); header.Get(header.Descriptor().Fields().ByName("revision")).Int() != 5 {
		t.Errorf("its header: %v", got.m)
	}
	// The lease of the owner ends.
	if _, err := s.store.Revoke(t.Context(), kv.LeaseID(second)); err != nil {
		t.Fatal(err)
	}
	if got := <-last; got.err != nil {
		t.Errorf("the third: %v", got.err)
	}
}

func hex(id int64) string { return strconv.FormatInt(id, 16) }

// TestLockGivenUp deletes the key of a caller who went away.
func TestLockGivenUp(t *testing.T) {
	s := newSessions(t)
	first, second := s.lease(), s.lease()
	s.good("Lock", named("l", first))
	ctx, cancel := context.WithCancel(t.Context())
	waiting := s.start(ctx, "Lock", "l/"+hex(second), named("l", second))
	cancel()
	if got := <-waiting; status.Code(got.err) != codes.Canceled {
		t.Errorf("%v", got.err)
	}
	s.until("l/"+hex(second), false)
	if _, err := kv.Get(t.Context(), s.store, "l/"+hex(first), kv.Strong); err != nil {
		t.Errorf("the owner's key: %v", err)
	}
}

func TestLockErrors(t *testing.T) {
	s := newSessions(t)
	_, err := s.call(t.Context(), "Lock", named("l", 99))
	wantStatus(t, err, codes.Unknown, "etcdserver: requested lease not found")
	_, err = s.call(t.Context(), "Unlock", func(lockpb.Message) {})
	wantStatus(t, err, codes.Unknown, "etcdserver: key is not provided")
	first, second := s.lease(), s.lease()
	held := s.good("Lock", named("l", first))
	waiting := s.start(t.Context(), "Lock", "l/"+hex(second), named("l", second))
	s.delete([]byte("l/" + hex(second)))
	s.delete(held.Bytes("key"))
	wantStatus(t, (<-waiting).err, codes.Unknown, "mutex: session is expired")
}

// TestLockWithoutLease is granted one.
func TestLockWithoutLease(t *testing.T) {
	s := newSessions(t)
	s.good("Lock", named("l", 0))
	leases, err := s.store.Leases(t.Context())
	if err != nil || len(leases.IDs) != 1 {
		t.Fatalf("%v, %v", leases, err)
	}
	res, err := s.store.TimeToLive(t.Context(), leases.IDs[0], true)
	if err != nil || res.TTL != time.Minute || len(res.Keys) != 1 || string(res.Keys[0]) != "l/"+hex(int64(res.ID)) {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestLockCompacted waits on though the history it waits in is compacted.
func TestLockCompacted(t *testing.T) {
	s := newSessions(t)
	first, second := s.lease(), s.lease()
	held := s.good("Lock", named("l", first))
	waiting := s.start(t.Context(), "Lock", "l/"+hex(second), named("l", second))
	for range 10 {
		rev := put(t, s.store, "other", "x")
		if _, err := s.store.Compact(t.Context(), kv.Revision(rev)); err != nil {
			t.Fatal(err)
		}
	}
	s.delete(held.Bytes("key"))
	if got := <-waiting; got.err != nil {
		t.Error(got.err)
	}
}

// TestLockLeader: who requires a leader is told when there is none.
func TestLockLeader(t *testing.T) {
	m := model()
	var leader atomic.Uint64
	leader.Store(1)
	s := &sessions{t: t, schema: lockpb.New(), store: m}
	s.conn = serve(t, m, func() kv.MemberID { return kv.MemberID(leader.Load()) }, etcdapi.Options{NoLeader: 20 * time.Millisecond})
	s.good("Lock", named("l", s.lease()))
	second := s.lease()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	waiting := s.start(ctx, "Lock", "l/"+hex(second), named("l", second))
	leader.Store(0)
	wantStatus(t, (<-waiting).err, codes.Unavailable, "etcdserver: no leader")
	_, err := s.call(ctx, "Lock", named("l", second))
	wantStatus(t, err, codes.Unavailable, "etcdserver: no leader")
}

// TestSessionsStop ends calls that wait when the API does.
func TestSessionsStop(t *testing.T) {
	m := model()
	api, conn := serveAPI(t, m, leads, etcdapi.Options{})
	s := &sessions{t: t, conn: conn, schema: lockpb.New(), store: m}
	s.good("Lock", named("l", s.lease()))
	second := s.lease()
	waiting := s.start(t.Context(), "Lock", "l/"+hex(second), named("l", second))
	api.Close()
	wantStatus(t, (<-waiting).err, codes.Unavailable, "etcdserver: server stopped")
	s.until("l/"+hex(second), false)
}
