package etcdapi_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

func TestWatchEvents(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	put(t, m, "a", "0")
	r := w.created(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("c"), PrevKv: true})
	want := &pb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xb, Revision: 2, RaftTerm: 7}
	if !proto.Equal(r, &pb.WatchResponse{Header: want, Created: true}) {
		t.Errorf("created: %v", r)
	}
	if _, err := m.Txn(t.Context(), kv.Txn{Success: []kv.Op{
		{Kind: kv.OpDelete, Key: []byte("a")}, {Kind: kv.OpPut, Key: []byte("b"), Value: []byte("1")},
		{Kind: kv.OpPut, Key: []byte("z")},
	}}); err != nil {
		t.Fatal(err)
	}
	want.Revision = 3
	if r := w.recv(); !proto.Equal(r, &pb.WatchResponse{Header: want, Events: []*mvccpb.Event{
		{
			Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 3},
			PrevKv: &mvccpb.KeyValue{Key: []byte("a"), Value: []byte("0"), CreateRevision: 2, ModRevision: 2, Version: 1},
		},
		{Kv: &mvccpb.KeyValue{Key: []byte("b"), Value: []byte("1"), CreateRevision: 3, ModRevision: 3, Version: 1}},
	}}) {
		t.Errorf("events: %v", r)
	}
}

func TestWatchIDs(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	for _, c := range []struct{ ask, got int64 }{{0, 0}, {2, 2}, {0, 1}, {0, 3}, {7, 7}} {
		if r := w.created(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: c.ask}); r.WatchId != c.got || r.Canceled {
			t.Errorf("asked for %d: %v", c.ask, r)
		}
	}
	r := w.created(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 7})
	if r.WatchId != -1 || !r.Canceled || r.CancelReason != "mvcc: duplicate watch ID provided on the WatchStream" {
		t.Errorf("a duplicate id: %v", r)
	}
	w.cancel(99) // unknown: nothing is said
	w.cancel(7)
	if r := w.recv(); r.WatchId != 7 || !r.Canceled || r.Created || r.CancelReason != "" {
		t.Errorf("cancelled: %v", r)
	}
	if r := w.created(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 7}); r.WatchId != 7 || r.Canceled {
		t.Errorf("an id that is free again: %v", r)
	}
}

func TestWatchRefused(t *testing.T) {
	m := model()
	for i := range 6 {
		put(t, m, "a", fmt.Sprint(i))
	}
	if _, err := m.Compact(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	r := w.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1})
	if r.WatchId != -1 || !r.Canceled || r.CancelReason != "etcdserver: mvcc: required revision has been compacted" {
		t.Errorf("a negative revision: %v", r)
	}
	r = w.created(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	if r.WatchId != -1 || !r.Canceled || r.CancelReason != "mvcc: watcher range is empty" {
		t.Errorf("an empty range: %v", r)
	}
	r = w.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2})
	if r.Canceled {
		t.Errorf("a compacted revision: %v", r)
	}
	if r := w.recv(); !r.Canceled || r.Created || r.CompactRevision != 5 || r.CancelReason != "" {
		t.Errorf("a compacted revision: %v", r)
	}
	w.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 5})
	for rev := int64(5); rev <= 7; rev++ {
		if r := w.recv(); len(r.Events) != 1 || r.Events[0].Kv.ModRevision != rev || r.Header.Revision != rev {
			t.Errorf("from the compacted revision on: %v", r)
		}
	}
}

func TestWatchFiltersAndFuture(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	w.created(&pb.WatchCreateRequest{WatchId: 1, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}, RangeEnd: []byte{0}})
	w.created(&pb.WatchCreateRequest{WatchId: 2, Key: []byte("a"), StartRevision: 4, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
	put(t, m, "a", "2")
	put(t, m, "a", "3")
	put(t, m, "a", "4")
	if r := w.recv(); r.WatchId != 2 || r.Events[0].Kv.ModRevision != 4 {
		t.Errorf("from a future revision: %v", r)
	}
	if _, err := kv.Delete(t.Context(), m, "a"); err != nil {
		t.Fatal(err)
	}
	if r := w.recv(); r.WatchId != 1 || r.Events[0].Type != mvccpb.Event_DELETE {
		t.Errorf("without puts: %v", r)
	}
}

func TestWatchFragments(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	w.created(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true})
	var ops []kv.Op
	for i := range 40 {
		ops = append(ops, kv.Op{Kind: kv.OpPut, Key: []byte(fmt.Sprint("k", i)), Value: make([]byte, 100<<10)})
	}
	if _, err := m.Txn(t.Context(), kv.Txn{Success: ops}); err != nil {
		t.Fatal(err)
	}
	got, parts := 0, 0
	for more := true; more; parts++ {
		r := w.recv()
		more = r.Fragment
		got += len(r.Events)
		if n := proto.Size(r); n > 2<<20 {
			t.Errorf("a fragment of %d bytes", n)
		}
	}
	if got != len(ops) || parts != 2 { // etcd divides at 2 MiB
		t.Errorf("%d events in %d parts", got, parts)
	}
	put(t, m, "k1", "small")
	if r := w.recv(); r.Fragment || len(r.Events) != 1 {
		t.Errorf("a small one: %v", r)
	}
}

// TestWatchProgress asks for progress while watches are busy, and checks that
// an answer never lies: nothing up to its revision comes after it.
func TestWatchProgress(t *testing.T) {
	const writes, watches = 300, 4
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	w.progress() // there is no watch: no answer
	for i := range watches {
		w.created(&pb.WatchCreateRequest{Key: []byte(fmt.Sprint("k", i))})
	}
	go func() {
		for i := range writes {
			if _, err := kv.Put(context.Background(), m, fmt.Sprint("k", i%(watches-1)), "v"); err != nil {
				panic(err)
			}
		}
	}()
	w.progress()
	progress, events := int64(0), 0
	for events < writes || progress < writes+1 {
		r := w.recv()
		if r.WatchId != -1 {
			events += len(r.Events)
			if r.Header.Revision <= progress {
				t.Fatalf("events of %d after progress to %d", r.Header.Revision, progress)
			}
			continue
		}
		if len(r.Events) > 0 || r.Header.Revision < progress {
			t.Fatalf("progress went from %d to %v", progress, r)
		}
		progress = r.Header.Revision
		w.progress()
	}
}

func TestWatchProgressNotify(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{Progress: time.Millisecond}))
	w.created(&pb.WatchCreateRequest{WatchId: 5, Key: []byte("a"), ProgressNotify: true})
	rev := put(t, m, "b", "1")
	for {
		r := w.recv()
		if r.WatchId != 5 || len(r.Events) > 0 {
			t.Fatalf("%v", r)
		}
		if r.Header.Revision == rev {
			return
		}
	}
}

// TestWatchManyOnOneStream keeps the order of each and mixes nothing up.
func TestWatchManyOnOneStream(t *testing.T) {
	const watches, writes = 200, 5
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	for i := range watches {
		if r := w.created(&pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%d", i)}); r.WatchId != int64(i) {
			t.Fatalf("watch %d: %v", i, r)
		}
	}
	for n := range writes {
		for i := range watches {
			put(t, m, fmt.Sprint("k", i), fmt.Sprint(n))
		}
	}
	versions := make([]int64, watches)
	for range watches * writes {
		r := w.recv()
		e := r.Events[0].Kv
		if string(e.Key) != fmt.Sprint("k", r.WatchId) {
			t.Fatalf("watch %d got %s", r.WatchId, e.Key)
		}
		if versions[r.WatchId]++; e.Version != versions[r.WatchId] {
			t.Fatalf("watch %d got version %d, want %d", r.WatchId, e.Version, versions[r.WatchId])
		}
	}
}

func TestRequireLeader(t *testing.T) {
	m := model()
	var leader atomic.Uint64
	conn := serve(t, m, func() kv.MemberID { return kv.MemberID(leader.Load()) }, etcdapi.Options{NoLeader: 20 * time.Millisecond})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true")
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	if status.Code(err) != codes.Unavailable || !strings.HasSuffix(err.Error(), "etcdserver: no leader") {
		t.Errorf("a range that requires a leader: %v", err)
	}
	if _, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("one that does not: %v", err)
	}
	plain := watch(t, conn)
	plain.created(&pb.WatchCreateRequest{Key: []byte("a")})
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t, stream}
	w.create(&pb.WatchCreateRequest{Key: []byte("a")})
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable || !strings.HasSuffix(err.Error(), "etcdserver: no leader") {
		t.Errorf("a watch that requires a leader ended with %v", err)
	}
	put(t, m, "a", "1")
	if r := plain.recv(); len(r.Events) != 1 {
		t.Errorf("a watch that does not: %v", r)
	}
}

func TestWatchEndsWithClient(t *testing.T) {
	conn := serve(t, model(), leads, etcdapi.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t, stream}
	w.created(&pb.WatchCreateRequest{Key: []byte("a")})
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
}

// ending ends every watch with an error after its opening mark.
type ending struct {
	kv.Store
	err error
}

func (s ending) Watch(context.Context, kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return func(yield func(kv.WatchBatch, error) bool) {
		_ = yield(kv.WatchBatch{Revision: 1}, nil) && yield(kv.WatchBatch{}, s.err)
	}
}

// TestWatchFails checks that clients are told to go on elsewhere where that may
// help, and else that the watch has ended.
func TestWatchFails(t *testing.T) {
	for _, passing := range []*kv.Error{kv.ErrClosed, kv.ErrNoLeader} {
		w := watch(t, serve(t, ending{model(), passing}, leads, etcdapi.Options{}))
		w.create(&pb.WatchCreateRequest{Key: []byte("a")})
		var err error
		for err == nil {
			var r *pb.WatchResponse
			if r, err = w.stream.Recv(); err == nil && r.Canceled {
				t.Errorf("%v: %v", passing, r)
			}
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%v ended the stream with %v", passing, err)
		}
	}
	w := watch(t, serve(t, ending{model(), kv.ErrCorrupt}, leads, etcdapi.Options{}))
	w.created(&pb.WatchCreateRequest{Key: []byte("a")})
	if r := w.recv(); !r.Canceled || !strings.HasSuffix(r.CancelReason, "etcdserver: corrupt cluster") {
		t.Errorf("%v", r)
	}
}
