package kubernetes

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/utils/clock"
)

// cached are tests on the watch cache that kube-apiserver has in front of its
// store. It follows one watch, and asks for progress before a consistent list.
// The functions of the suite that are not here look into the cache itself, or
// the cache is not made for them.
func cached() []test {
	behind := func(name string, run func(context.Context, *testing.T, storage.Interface)) test {
		return test{name: "Cached" + name, run: func(ctx context.Context, t *testing.T, w *world) { run(ctx, t, w.cache(ctx, t)) }}
	}
	lists := []test{
		{name: "CachedConsistentList", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestConsistentList(ctx, t, w.cache(ctx, t), w.bump, true, true, false)
		}},
		{name: "CachedGetListNonRecursive", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, w.bump, w.cache(ctx, t))
		}},
	}
	return append(with(features.ListFromCacheSnapshot, false, lists...),
		behind("Get", storagetesting.RunTestGet),
		behind("CreateWithTTL", storagetesting.RunTestCreateWithTTL),
		behind("ConditionalDelete", storagetesting.RunTestConditionalDelete),
		behind("GuaranteedUpdateWithTTL", storagetesting.RunTestGuaranteedUpdateWithTTL),
		behind("GuaranteedUpdateWithConflict", storagetesting.RunTestGuaranteedUpdateWithConflict),
		behind("ListPaging", storagetesting.RunTestListPaging),
		behind("Watch", storagetesting.RunTestWatch),
		behind("DeleteTriggerWatch", storagetesting.RunTestDeleteTriggerWatch),
		behind("WatchFromNonZero", storagetesting.RunTestWatchFromNonZero),
		behind("DelayedWatchDelivery", storagetesting.RunTestDelayedWatchDelivery),
		behind("WatcherTimeout", storagetesting.RunTestWatcherTimeout),
		behind("WatchDeleteEventObjectHaveLatestRV", storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
		behind("WatchInitializationSignal", storagetesting.RunTestWatchInitializationSignal),
		behind("WatchDispatchBookmarkEvents", func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, s, true)
		}),
		behind("WatchBookmarksWithCorrectResourceVersion", storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion),
		behind("SendInitialEventsBackwardCompatibility", storagetesting.RunSendInitialEventsBackwardCompatibility))
}

// cache puts a watch cache in front of the store and waits until it is filled.
func (w *world) cache(ctx context.Context, t *testing.T) storage.Interface {
	t.Helper()
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: w.Interface, Versioner: w.Versioner(), GroupResource: w.pods(), Codec: w.codec,
		EventsHistoryWindow: cacher.DefaultEventFreshDuration, ResourcePrefix: resources, Clock: clock.RealClock{},
		KeyFunc:      func(object runtime.Object) (string, error) { return storage.NamespaceKeyFunc(resources, object) },
		GetAttrsFunc: attributes,
		NewFunc:      func() runtime.Object { return &example.Pod{} },
		NewListFunc:  func() runtime.Object { return &example.PodList{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	delegator := cacher.NewCacheDelegator(c, w.Interface)
	t.Cleanup(delegator.Stop)
	return delegator
}

// attributes are what an object can be selected by.
func attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	pod, is := object.(*example.Pod)
	if !is {
		return nil, nil, fmt.Errorf("%T is no pod", object)
	}
	return pod.Labels, fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
		"spec.restartPolicy": string(pod.Spec.RestartPolicy), "status.phase": string(pod.Status.Phase),
	}, nil
}
