package kubernetes

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// ours are tests of what the store asks the server for that the suite leaves to
// the store's own tests.
func ours() []test {
	return append(with(features.EtcdRangeStream, true, test{name: "StreamOfManyKeys", run: testStream}),
		test{name: "Compactors", run: testCompactors},
		test{name: "Leases", run: testLeases},
		test{name: "Revision", run: testRevision},
		test{name: "RequestProgress", run: testRequestProgress})
}

// deleter is a store that may delete what it cannot read.
func (w *world) deleter() storagetesting.InterfaceWithTransformerOverride {
	over := *w
	over.Interface = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(w.Interface, w.pods())
	return &over
}

// streamed checks that range streams were used if they may be, and not else.
func (w *world) streamed(t *testing.T) {
	t.Helper()
	on := utilfeature.DefaultFeatureGate.Enabled(features.EtcdRangeStream)
	if n := w.kv.GetStreamReadsAndReset(); (n > 0) != on {
		t.Errorf("%d range streams; allowed: %v", n, on)
	}
}

// largestPage is the page size at which the store stops doubling.
const largestPage = 10_000

// calls checks that the store read so many objects in as few requests as it can:
// when pages hold too little of what it looks for, each is twice the one before.
func (w *world) calls(t *testing.T, page, objects uint64) {
	t.Helper()
	want := uint64(1)
	for read := uint64(1); page > 0 && read < objects; read += page {
		page = min(2*page, largestPage)
		want++
	}
	if n := w.form.get().(*storagetesting.PrefixTransformer).GetReadsAndReset(); n != objects {
		t.Errorf("%d objects were read in place of %d", n, objects)
	}
	if n := w.kv.GetReadsAndReset() + w.kv.GetStreamReadsAndReset(); n != want {
		t.Errorf("%d requests in place of %d", n, want)
	}
}

// create creates objects with the numbers from first to before end.
func (w *world) create(ctx context.Context, t *testing.T, first, end int, ttl uint64) {
	t.Helper()
	for i := first; i < end; i++ {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: fmt.Sprintf("pod-%05d", i)}}
		if err := w.Create(ctx, resources+"ours/"+pod.Name, pod, nil, ttl); err != nil {
			t.Fatal(err)
		}
	}
}

// testStream lists more objects than a server puts into one answer of a stream,
// now and at an older revision.
func testStream(ctx context.Context, t *testing.T, w *world) {
	const before, after = 1000, 30
	list := func(want int, version string, match metav1.ResourceVersionMatch) string {
		t.Helper()
		var pods example.PodList
		opts := storage.ListOptions{ResourceVersion: version, ResourceVersionMatch: match, Predicate: storage.Everything, Recursive: true}
		if err := w.GetList(ctx, resources, opts, &pods); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) != want || pods.Continue != "" || pods.RemainingItemCount != nil {
			t.Errorf("%d objects in place of %d, more: %q", len(pods.Items), want, pods.Continue)
		}
		w.streamed(t)
		return pods.ResourceVersion
	}
	w.create(ctx, t, 0, before, 0)
	version := list(before, "", "")
	w.create(ctx, t, before, before+after, 0)
	if at := list(before, version, metav1.ResourceVersionMatchExact); at != version {
		t.Errorf("a list at %s says %s", version, at)
	}
	list(before+after, version, metav1.ResourceVersionMatchNotOlderThan)
}

// testCompactors has two compactors take turns, as those of several
// kube-apiservers do: who comes late only learns where the other is.
func testCompactors(ctx context.Context, t *testing.T, w *world) {
	first, second, third := w.bump(ctx, t), w.bump(ctx, t), w.bump(ctx, t)
	for i, step := range []struct{ version, revision, wantVersion, wantCompacted int64 }{
		{0, first, 1, first}, {0, second, 1, first}, {1, second, 2, second}, {1, third, 2, second}, {2, third, 3, third},
	} {
		version, _, compacted, err := etcd3.Compact(ctx, w.client.Client, step.version, step.revision)
		if err != nil || version != step.wantVersion || compacted != step.wantCompacted {
			t.Fatalf("step %d: version %d, compacted %d: %v", i, version, compacted, err)
		}
	}
	if _, err := w.client.KV.Get(ctx, "elsewhere", clientv3.WithRev(second)); err == nil {
		t.Error("a compacted revision can be read")
	}
}

// testLeases: objects with about the same TTL share leases, and go with them.
func testLeases(ctx context.Context, t *testing.T, w *world) {
	const objects = 1500 // a lease takes a thousand
	w.create(ctx, t, 0, objects, 3600)
	r, err := w.client.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	attached := 0
	for _, lease := range r.Leases {
		ttl, err := w.client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		attached += len(ttl.Keys)
		if len(ttl.Keys) > 1000 || ttl.GrantedTTL < 3600 {
			t.Errorf("a lease of %d s has %d objects", ttl.GrantedTTL, len(ttl.Keys))
		}
		if _, err := w.client.Revoke(ctx, lease.ID); err != nil {
			t.Fatal(err)
		}
	}
	if attached != objects || len(r.Leases) < 2 {
		t.Errorf("%d leases have %d objects in place of %d", len(r.Leases), attached, objects)
	}
	if stats, err := w.Stats(ctx); err != nil || stats.ObjectCount != 0 {
		t.Errorf("%d objects are left: %v", stats.ObjectCount, err)
	}
}

// testRevision: reading makes no revision, and a write anywhere makes one that
// is the store's.
func testRevision(ctx context.Context, t *testing.T, w *world) {
	w.create(ctx, t, 0, 1, 0)
	for range 3 {
		at := uint64(w.bump(ctx, t))
		for range 3 {
			var pods example.PodList
			if err := w.GetList(ctx, resources, storage.ListOptions{Predicate: storage.Everything, Recursive: true}, &pods); err != nil {
				t.Fatal(err)
			}
			if got, err := w.GetCurrentResourceVersion(ctx); err != nil || got != at || pods.ResourceVersion != fmt.Sprint(at) {
				t.Errorf("the store is at %d, a list at %s, in place of %d: %v", got, pods.ResourceVersion, at, err)
			}
		}
	}
}

// testRequestProgress: the server is seen to answer requests for progress, and
// its answer to one brings a watch without events to the newest revision. The
// watch cache waits for that before each consistent list.
func testRequestProgress(ctx context.Context, t *testing.T, w *world) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !etcdfeature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the store does not see that the server answers requests for progress")
		}
	}
	watch, err := w.Watch(ctx, resources, storage.ListOptions{ResourceVersion: "1", Predicate: storage.Everything, Recursive: true, ProgressNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	at := fmt.Sprint(w.bump(ctx, t))
	for {
		if err := w.RequestWatchProgress(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case event := <-watch.ResultChan():
			if pod, is := event.Object.(*example.Pod); !is || pod.ResourceVersion != at {
				t.Fatalf("%s %v in place of a bookmark at %s", event.Type, event.Object, at)
			}
			return
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no bookmark came")
		}
	}
}
