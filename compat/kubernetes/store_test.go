package kubernetes

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/utils/clock"
)

const (
	// resources is where the tests keep their objects.
	resources = "/pods/"
	// mark is before each stored value, so that a change of the stored form shows.
	mark = "stored:"
)

// A world is a store, with what is under it.
type world struct {
	storage.Interface
	client *kubernetes.Client
	// kv and lists count what the store asks the server.
	kv    *storagetesting.KVRecorder
	lists *storagetesting.KubernetesRecorder
	// codec and form are between objects and stored values, and can be made to fail.
	codec *breakableCodec
	form  *replaceable
}

// newWorld opens a store with a client of its own.
func newWorld(t *testing.T, endpoints []string) *world {
	t.Helper()
	client, err := kubernetes.New(settings(t.Context(), endpoints))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{client: client, codec: newCodec(t), form: &replaceable{}}
	w.lists = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	w.kv = storagetesting.NewKVRecorder(client.KV, w.lists)
	client.KV, client.Kubernetes = w.kv, w.lists
	w.form.set(storagetesting.NewPrefixTransformer([]byte(mark), false))
	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1 // the tests do not wait for a minute
	versioner := storage.APIObjectVersioner{}
	s, err := etcd3.New(client, compactor, w.codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", resources, w.pods(), w.form, leases,
		etcd3.NewDefaultDecoder(w.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	w.Interface = s
	t.Cleanup(func() {
		s.Close()
		compactor.Stop()
		if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return w
}

func newCodec(t *testing.T) *breakableCodec {
	t.Helper()
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := errors.Join(example.AddToScheme(scheme), examplev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return &breakableCodec{Codec: apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)}
}

var errBroken = errors.New("broken for the test")

// A breakableCodec reads no objects while it is broken.
type breakableCodec struct {
	runtime.Codec
	broken atomic.Bool
}

func (c *breakableCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if c.broken.Load() {
		return nil, nil, errBroken
	}
	return c.Codec.Decode(data, defaults, into)
}

// A replaceable is a transformer that can be replaced while it is used.
type replaceable struct {
	mu     sync.Mutex
	now    value.Transformer
	broken atomic.Bool
}

func (r *replaceable) get() value.Transformer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *replaceable) set(now value.Transformer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = now
}

func (r *replaceable) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	if r.broken.Load() {
		return nil, false, errBroken
	}
	return r.get().TransformFromStorage(ctx, data, dataCtx)
}

func (r *replaceable) TransformToStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, error) {
	return r.get().TransformToStorage(ctx, data, dataCtx)
}

// UpdatePrefixTransformer replaces the transformer until the function that it
// returns is called.
func (w *world) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	return w.UpdateTransformer(func(now value.Transformer) value.Transformer {
		changed := *now.(*storagetesting.PrefixTransformer)
		return modify(&changed)
	})
}

// UpdateTransformer does so with any transformer.
func (w *world) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	before := w.form.get()
	w.form.set(modify(before))
	return func() { w.form.set(before) }
}

// corruption is the error of a store that cannot make sense of what is stored.
func corruption(ctx context.Context) error {
	broken := &replaceable{}
	broken.broken.Store(true)
	_, _, err := etcd3.WithCorruptObjErrorHandlingTransformer(broken).TransformFromStorage(ctx, nil, value.DefaultContext(nil))
	return err
}

// stored checks the value of a key: an object with the mark before it that does
// not say its own revision.
func (w *world) stored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	r, err := w.client.KV.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) != 1 {
		t.Fatalf("%d keys %s", len(r.Kvs), key)
	}
	data, marked := strings.CutPrefix(string(r.Kvs[0].Value), mark)
	object, err := runtime.Decode(w.codec, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	if pod := object.(*example.Pod); !marked || pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored under %s: %s", key, r.Kvs[0].Value)
	}
}

// pods names the objects of the tests.
func (w *world) pods() schema.GroupResource { return schema.GroupResource{Resource: "pods"} }

// bump makes a new revision elsewhere.
func (w *world) bump(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	r, err := w.client.KV.Put(ctx, "elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

// compact compacts as kube-apiserver does, and waits until the store knows.
func (w *world) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	rev, err := w.Versioner().ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, compacted, err := etcd3.Compact(ctx, w.client.Client, 0, int64(rev)); err != nil || compacted != int64(rev) {
		// The key of the compactor is there from a compaction before.
		seen, _, _, err := etcd3.Compact(ctx, w.client.Client, 0, int64(rev))
		if err == nil {
			_, _, compacted, err = etcd3.Compact(ctx, w.client.Client, seen, int64(rev))
		}
		if err != nil || compacted != int64(rev) {
			t.Fatalf("compacted %d in place of %d: %v", compacted, rev, err)
		}
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return // the store does not look
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); w.CompactRevision() != int64(rev); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the store knows of a compaction at %d, not at %d", w.CompactRevision(), rev)
		}
	}
}

// keys are the keys of all objects.
func (w *world) keys(ctx context.Context) ([]string, error) {
	r, err := w.client.KV.Get(ctx, resources, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys, nil
}
