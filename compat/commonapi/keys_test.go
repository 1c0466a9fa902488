package commonapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

func ofKeys() []behaviour {
	return []behaviour{
		{name: "put", etcd: []string{"kv_test.go/TestKVPut"}, run: doPut},
		{name: "get", etcd: []string{"kv_test.go/TestKVGet"}, run: func(t *testing.T, ctx context.Context, w *world) { doGet(t, ctx, w, false) }},
		{name: "get stream", etcd: []string{"kv_test.go/TestKVGetStream"}, run: func(t *testing.T, ctx context.Context, w *world) { doGet(t, ctx, w, true) }},
		{name: "delete", etcd: []string{"kv_test.go/TestKVDelete"}, run: doDelete},
		{name: "get without a majority", etcd: []string{"kv_test.go/TestKVGetNoQuorum"}, run: doGetAlone, least: 3},
		{name: "transaction", etcd: []string{"txn_test.go/TestTxnSucc", "txn_test.go/TestTxnFail"}, run: doTxn},
		{name: "watch", etcd: []string{"watch_test.go/TestWatch"}, run: doWatch},
		{name: "compaction", etcd: []string{"compact_test.go/TestCompact"}, run: doCompact},
		{name: "defragmentation", etcd: []string{"defrag_test.go/TestDefragOnline"}, run: doDefragment},
	}
}

func doPut(t *testing.T, ctx context.Context, w *world) {
	before := put(t, ctx, w.c, "color", "red")
	after := put(t, ctx, w.c, "color", "blue")
	if after.Header.Revision != before.Header.Revision+1 {
		t.Errorf("revision %d follows %d", after.Header.Revision, before.Header.Revision)
	}
	wantValue(t, ctx, w.c, "color", "blue")
}

// history is what was put, in order.
type history []*mvccpb.KeyValue

// write puts keys and remembers what they then are.
func (h *history) write(t *testing.T, ctx context.Context, c *clientv3.Client, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		rev := put(t, ctx, c, pairs[i], pairs[i+1]).Header.Revision
		next := &mvccpb.KeyValue{Key: []byte(pairs[i]), Value: []byte(pairs[i+1]), CreateRevision: rev, ModRevision: rev, Version: 1}
		for _, old := range *h {
			if string(old.Key) == pairs[i] {
				next.CreateRevision, next.Version = old.CreateRevision, old.Version+1
			}
		}
		*h = append(*h, next)
	}
}

// answer is what a range has to answer, found out the long way.
func (h history) answer(q *pb.RangeRequest) *pb.RangeResponse {
	latest := map[string]*mvccpb.KeyValue{}
	for _, k := range h {
		if q.Revision == 0 || k.ModRevision <= q.Revision {
			latest[string(k.Key)] = k
		}
	}
	r := &pb.RangeResponse{}
	for key, k := range latest {
		in := key == string(q.Key)
		if end := string(q.RangeEnd); end != "" {
			in = key >= string(q.Key) && (end == "\x00" || key < end)
		}
		if !in {
			continue
		}
		r.Count++
		if (q.MinModRevision == 0 || k.ModRevision >= q.MinModRevision) && (q.MaxModRevision == 0 || k.ModRevision <= q.MaxModRevision) &&
			(q.MinCreateRevision == 0 || k.CreateRevision >= q.MinCreateRevision) && (q.MaxCreateRevision == 0 || k.CreateRevision <= q.MaxCreateRevision) {
			r.Kvs = append(r.Kvs, proto.Clone(k).(*mvccpb.KeyValue))
		}
	}
	slices.SortFunc(r.Kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	slices.SortStableFunc(r.Kvs, func(a, b *mvccpb.KeyValue) int {
		order := 0
		switch q.SortTarget {
		case pb.RangeRequest_KEY:
			order = bytes.Compare(a.Key, b.Key)
		case pb.RangeRequest_VERSION:
			order = cmp.Compare(a.Version, b.Version)
		case pb.RangeRequest_CREATE:
			order = cmp.Compare(a.CreateRevision, b.CreateRevision)
		case pb.RangeRequest_MOD:
			order = cmp.Compare(a.ModRevision, b.ModRevision)
		case pb.RangeRequest_VALUE:
			order = bytes.Compare(a.Value, b.Value)
		}
		if q.SortOrder == pb.RangeRequest_DESCEND {
			return -order
		}
		return order
	})
	if q.CountOnly {
		r.Kvs = nil
	} else if n := int(q.Limit); n > 0 && len(r.Kvs) > n {
		r.Kvs, r.More = r.Kvs[:n], true
	}
	for _, k := range r.Kvs {
		if q.KeysOnly {
			k.Value = nil
		}
	}
	return r
}

// doGet asks for ranges with every option, at several revisions.
func doGet(t *testing.T, ctx context.Context, w *world, stream bool) {
	h := history{}
	h.write(t, ctx, w.c, "apple", "7", "fig", "8", "fig", "9", "fig", "2", "pear", "5", "pear/green", "0", "plum", "6", "pear", "4")
	w.settle(t, ctx)
	first, last := h[0].ModRevision, h[len(h)-1].ModRevision
	r := rand.New(rand.NewPCG(1, 1))
	ranges := [...][2]string{{"apple", ""}, {"nothing", ""}, {"apple", "pear"}, {"\x00", "\x00"}, {"pear", "peas"}, {"pear", "\x00"}}
	revisions := [...]int64{0, first + 1, first + 2, last}
	for range 1000 {
		keys := ranges[r.IntN(len(ranges))]
		q := &pb.RangeRequest{Key: []byte(keys[0]), RangeEnd: []byte(keys[1]), Revision: revisions[r.IntN(len(revisions))], Serializable: r.IntN(2) == 0}
		q.Limit = int64(2 * r.IntN(3))
		*[...]*bool{new(bool), &q.KeysOnly, &q.CountOnly}[r.IntN(3)] = true
		if !stream { // which is in key order, and whole
			q.SortTarget, q.SortOrder = pb.RangeRequest_SortTarget(r.IntN(5)), pb.RangeRequest_SortOrder(r.IntN(3))
			*[...]*int64{new(int64), &q.MinModRevision, &q.MaxModRevision, &q.MinCreateRevision, &q.MaxCreateRevision}[r.IntN(5)] = first + 3
		}
		compareRange(t, ctx, w, q, h.answer(q), last, stream)
	}
}

// compareRange makes one request.
func compareRange(t *testing.T, ctx context.Context, w *world, q *pb.RangeRequest, want *pb.RangeResponse, revision int64, stream bool) {
	t.Helper()
	kv := pb.NewKVClient(w.c.ActiveConnection())
	var got *pb.RangeResponse
	var err error
	if stream {
		got, err = readStream(ctx, kv, q)
	} else {
		got, err = kv.Range(ctx, q)
	}
	if err != nil {
		t.Fatalf("%v: %v", prototext.MarshalOptions{}.Format(q), err)
	}
	if got.Header.GetRevision() != revision {
		t.Errorf("%v: at revision %d, not %d", q, got.Header.GetRevision(), revision)
	}
	if got.Header = nil; !proto.Equal(got, want) {
		t.Errorf("%v:\n got %v\nwant %v", q, got, want)
	}
}

// readStream joins the parts of a range stream.
func readStream(ctx context.Context, kv pb.KVClient, q *pb.RangeRequest) (*pb.RangeResponse, error) {
	stream, err := kv.RangeStream(ctx, q)
	if err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return nil, err
		}
		r := part.RangeResponse
		whole.Kvs = append(whole.Kvs, r.Kvs...)
		whole.Header, whole.More, whole.Count = r.Header, r.More, r.Count
	}
}

func doDelete(t *testing.T, ctx context.Context, w *world) {
	keys := []string{"i", "j", "k", "k/l", "m"}
	for _, c := range []struct {
		key  string
		opts []clientv3.OpOption
		gone string
	}{
		{"", []clientv3.OpOption{clientv3.WithPrefix()}, "i j k k/l m"},
		{"", []clientv3.OpOption{clientv3.WithFromKey()}, "i j k k/l m"},
		{"i", []clientv3.OpOption{clientv3.WithRange("k")}, "i j"},
		{"k", nil, "k"},
		{"k", []clientv3.OpOption{clientv3.WithPrefix()}, "k k/l"},
		{"k", []clientv3.OpOption{clientv3.WithFromKey()}, "k k/l m"},
		{"n", nil, ""},
	} {
		var rest []string
		for _, k := range keys {
			put(t, ctx, w.c, k, "x")
			if !slices.Contains(strings.Fields(c.gone), k) {
				rest = append(rest, k)
			}
		}
		d := get[*clientv3.DeleteResponse](t)(w.c.Delete(ctx, c.key, c.opts...))
		var left []string
		for _, k := range get[*clientv3.GetResponse](t)(w.c.Get(ctx, "", clientv3.WithPrefix())).Kvs {
			left = append(left, string(k.Key))
		}
		if int(d.Deleted) != len(keys)-len(rest) || !slices.Equal(left, rest) {
			t.Errorf("delete of %q: %d are gone, %q are left, want %q", c.key, d.Deleted, left, rest)
		}
	}
}

// doGetAlone: what one of three members knows it tells who does not mind how old
// it is.
func doGetAlone(t *testing.T, ctx context.Context, w *world) {
	put(t, ctx, w.c, "color", "red")
	w.settle(t, ctx)
	w.Stop(0)
	w.Stop(1)
	alone := w.one(t, 2)
	if r, err := alone.Get(ctx, "color", clientv3.WithSerializable()); err != nil || len(r.Kvs) != 1 {
		t.Errorf("serializable: %v, %v", r, err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := alone.Get(short, "color"); err == nil {
		t.Error("a linearizable read succeeded without a majority")
	}
	w.Start(0)
	w.Start(1)
}

func doTxn(t *testing.T, ctx context.Context, w *world) {
	put(t, ctx, w.c, "one", "1")
	put(t, ctx, w.c, "two", "2")
	spaced := "a \"quoted\" key"
	for i, c := range []struct {
		compare            []clientv3.Cmp
		success, otherwise []clientv3.Op
		want               string
	}{
		{[]clientv3.Cmp{clientv3.Compare(clientv3.Value("one"), "!=", "2"), clientv3.Compare(clientv3.Value("two"), "!=", "1")},
			[]clientv3.Op{clientv3.OpGet("one"), clientv3.OpGet("two")}, nil, "true one=1 two=2"},
		{[]clientv3.Cmp{clientv3.Compare(clientv3.Version("one"), "=", 1), clientv3.Compare(clientv3.Version("two"), "=", 1)},
			[]clientv3.Op{clientv3.OpGet("one"), clientv3.OpGet("two"), clientv3.OpPut(spaced, "v\x23")},
			[]clientv3.Op{clientv3.OpPut("one", "no"), clientv3.OpPut("two", "no")}, "true one=1 two=2 put"},
		{[]clientv3.Cmp{clientv3.Compare(clientv3.Version(spaced), "=", 1)}, []clientv3.Op{clientv3.OpGet(spaced)}, nil, "true " + spaced + "=v#"},
		{[]clientv3.Cmp{clientv3.Compare(clientv3.Version("three"), "<", 0)},
			[]clientv3.Op{clientv3.OpPut("three", "yes")}, []clientv3.Op{clientv3.OpPut("three", "no")}, "false put"},
		{[]clientv3.Cmp{clientv3.Compare(clientv3.Value("one"), "!=", "1")},
			[]clientv3.Op{clientv3.OpPut("one", "yes")}, []clientv3.Op{clientv3.OpPut("one", "no")}, "false put"},
	} {
		r := get[*clientv3.TxnResponse](t)(w.c.Txn(ctx).If(c.compare...).Then(c.success...).Else(c.otherwise...).Commit())
		if got := said(r); got != c.want {
			t.Errorf("transaction %d: %q, want %q", i, got, c.want)
		}
	}
	wantValue(t, ctx, w.c, "one", "no")
	wantValue(t, ctx, w.c, "three", "no")
}

// said is what a transaction answered, in words.
func said(r *clientv3.TxnResponse) string {
	words := []string{fmt.Sprint(r.Succeeded)}
	for _, op := range r.Responses {
		if op.GetResponsePut() != nil {
			words = append(words, "put")
		}
		for _, k := range op.GetResponseRange().GetKvs() {
			words = append(words, fmt.Sprintf("%s=%s", k.Key, k.Value))
		}
	}
	return strings.Join(words, " ")
}

func doWatch(t *testing.T, ctx context.Context, w *world) {
	for _, c := range []struct {
		key  string
		opts []clientv3.OpOption
		skip int64 // revisions before the watch begins
		puts []string
		want []string
	}{
		{"w", nil, 1, []string{"w=1", "w=2", "w=3"}, []string{"w=2", "w=3"}},
		{"single", nil, 0, []string{"other=1", "single=1"}, []string{"single=1"}},
		{"p", []clientv3.OpOption{clientv3.WithPrefix()}, 0, []string{"p1=a", "q=b", "p2=c", "p3=d"}, []string{"p1=a", "p2=c", "p3=d"}},
		{"r", []clientv3.OpOption{clientv3.WithRange("r3")}, 0, []string{"r1=a", "r3=b", "r2=c"}, []string{"r1=a", "r2=c"}},
	} {
		from := get[*clientv3.GetResponse](t)(w.c.Get(ctx, "x")).Header.Revision + 1 + c.skip
		within, cancel := context.WithCancel(ctx)
		watch := w.c.Watch(within, c.key, append(c.opts, clientv3.WithRev(from))...)
		for _, p := range c.puts {
			key, value, _ := strings.Cut(p, "=")
			put(t, ctx, w.c, key, value)
		}
		var got []string
		for len(got) < len(c.want) {
			r, ok := <-watch
			if !ok || r.Err() != nil {
				t.Fatalf("watch of %s: %v", c.key, r.Err())
			}
			for _, e := range r.Events {
				got = append(got, fmt.Sprintf("%s=%s", e.Kv.Key, e.Kv.Value))
			}
		}
		if cancel(); !slices.Equal(got, c.want) {
			t.Errorf("watch of %s: %q, want %q", c.key, got, c.want)
		}
	}
}

func doCompact(t *testing.T, ctx context.Context, w *world) {
	for _, opts := range [][]clientv3.CompactOption{nil, {clientv3.WithCompactPhysical()}} {
		first := put(t, ctx, w.c, "c", "1").Header.Revision
		put(t, ctx, w.c, "c", "2")
		put(t, ctx, w.c, "c", "3")
		if r := get[*clientv3.GetResponse](t)(w.c.Get(ctx, "c", clientv3.WithRev(first+1))); string(r.Kvs[0].Value) != "2" {
			t.Errorf("at its second revision it is %s", r.Kvs[0].Value)
		}
		_, err := w.c.Compact(ctx, first+2, opts...)
		must(t, err)
		const compacted = "required revision has been compacted"
		_, err = w.c.Get(ctx, "c", clientv3.WithRev(first+1))
		refused(t, "get of a compacted revision", err, compacted)
		_, err = w.c.Compact(ctx, first, opts...)
		refused(t, "compaction of a compacted revision", err, compacted)
		wantValue(t, ctx, w.c, "c", "3")
	}
}

func doDefragment(t *testing.T, ctx context.Context, w *world) {
	var rev int64
	for i := range 3 {
		rev = put(t, ctx, w.c, "d", fmt.Sprint(i)).Header.Revision
	}
	_, err := w.c.Compact(ctx, rev, clientv3.WithCompactPhysical())
	must(t, err)
	for _, endpoint := range w.Endpoints() {
		_, err := w.c.Defragment(ctx, endpoint)
		must(t, err)
	}
	wantValue(t, ctx, w.c, "d", "2")
}
