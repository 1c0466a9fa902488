package kubernetes

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// A test is one call of the suite, on a store of its own.
type test struct {
	name string
	run  func(context.Context, *testing.T, *world)
	// gates are switched on, or off, before the store is opened.
	gates map[featuregate.Feature]bool
	// progress asks for servers whose watches soon say how far they are.
	progress bool
}

// plain is a test that needs the store alone.
func plain(name string, run func(context.Context, *testing.T, storage.Interface)) test {
	return test{name: name, run: func(ctx context.Context, t *testing.T, w *world) { run(ctx, t, w.Interface) }}
}

// with sets a gate for tests.
func with(gate featuregate.Feature, on bool, tests ...test) []test {
	changed := make([]test, len(tests))
	for i, one := range tests {
		gates := map[featuregate.Feature]bool{gate: on}
		for other, on := range one.gates {
			gates[other] = on
		}
		one.name, one.gates = fmt.Sprintf("%s/%s=%v", one.name, gate, on), gates
		changed[i] = one
	}
	return changed
}

// either runs tests without range streams and with them.
func either(tests ...test) []test {
	return append(with(features.EtcdRangeStream, false, tests...), with(features.EtcdRangeStream, true, tests...)...)
}

// TestStorage runs the suite on etcd, which shows that it is run rightly, on
// Concord with one member, and on Concord with three.
func TestStorage(t *testing.T) {
	program := build(t)
	var tests []test
	for _, some := range [][]test{writes(), deletions(), malformed(), lists(), either(streamedLists()...), watches(), either(streamedWatches()...), cached(), ours()} {
		tests = append(tests, some...)
	}
	for _, server := range []struct {
		name  string
		start servers
	}{{"etcd", etcd}, {"concord1", concord(program, 1)}, {"concord3", concord(program, 3)}} {
		t.Run(server.name, func(t *testing.T) {
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) {
					for gate, on := range test.gates {
						featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, gate, on)
					}
					// What is known of a server is not true of the next.
					before := etcdfeature.DefaultFeatureSupportChecker
					etcdfeature.DefaultFeatureSupportChecker = etcdfeature.NewDefaultFeatureSupportChecker()
					t.Cleanup(func() { etcdfeature.DefaultFeatureSupportChecker = before })
					test.run(t.Context(), t, newWorld(t, server.start(t, test.progress)))
				})
			}
		})
	}
}

// writes are the tests of creation, reading and updates.
func writes() []test {
	return []test{
		{name: "Create", run: func(ctx context.Context, t *testing.T, w *world) { storagetesting.RunTestCreate(ctx, t, w, w.stored) }},
		plain("CreateWithTTL", storagetesting.RunTestCreateWithTTL),
		plain("CreateWithKeyExist", storagetesting.RunTestCreateWithKeyExist),
		plain("Get", storagetesting.RunTestGet),
		plain("KeySchema", storagetesting.RunTestKeySchema),
		{name: "GuaranteedUpdate", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, w, w.stored)
		}},
		plain("GuaranteedUpdateWithTTL", storagetesting.RunTestGuaranteedUpdateWithTTL),
		{name: "GuaranteedUpdateChecksStoredData", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, w)
		}},
		plain("GuaranteedUpdateWithConflict", storagetesting.RunTestGuaranteedUpdateWithConflict),
		plain("GuaranteedUpdateWithSuggestionAndConflict", storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict),
		{name: "TransformationFailure", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestTransformationFailure(ctx, t, w)
		}},
		{name: "Stats", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestStats(ctx, t, w, w.codec, w.form, false)
		}},
		{name: "StatsOfSizes", run: func(ctx context.Context, t *testing.T, w *world) {
			if err := w.EnableResourceSizeEstimation(w.keys); err != nil {
				t.Fatal(err)
			}
			storagetesting.RunTestStats(ctx, t, w, w.codec, w.form, true)
		}},
	}
}

func deletions() []test {
	return []test{
		plain("UnconditionalDelete", storagetesting.RunTestUnconditionalDelete),
		plain("ConditionalDelete", storagetesting.RunTestConditionalDelete),
		plain("DeleteWithSuggestion", storagetesting.RunTestDeleteWithSuggestion),
		plain("DeleteWithSuggestionAndConflict", storagetesting.RunTestDeleteWithSuggestionAndConflict),
		plain("DeleteWithConflict", storagetesting.RunTestDeleteWithConflict),
		plain("DeleteWithSuggestionOfDeletedObject", storagetesting.RunTestDeleteWithSuggestionOfDeletedObject),
		plain("ValidateDeletionWithSuggestion", storagetesting.RunTestValidateDeletionWithSuggestion),
		plain("ValidateDeletionWithOnlySuggestionValid", storagetesting.RunTestValidateDeletionWithOnlySuggestionValid),
		plain("PreconditionalDeleteWithSuggestion", storagetesting.RunTestPreconditionalDeleteWithSuggestion),
		plain("PreconditionalDeleteWithOnlySuggestionPass", storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass),
	}
}

// malformed are the tests with stored values that cannot be read.
func malformed() []test {
	broken := func(name string, set func(*world) func(bool), run func(context.Context, testing.TB, storage.Interface, func(bool))) test {
		return test{name: name, run: func(ctx context.Context, t *testing.T, w *world) { run(ctx, t, w.Interface, set(w)) }}
	}
	codec := func(w *world) func(bool) { return w.codec.broken.Store }
	form := func(w *world) func(bool) { return w.form.broken.Store }
	tests := with(features.AllowUnsafeMalformedObjectDeletion, true,
		broken("DeleteWithConflictAndMissingExpectedTransformOrDecodeError", codec, storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError),
		broken("DeleteExpectedTransformError", form, storagetesting.RunTestDeleteExpectedTransformOrDecodeError),
		broken("DeleteExpectedDecodeError", codec, storagetesting.RunTestDeleteExpectedTransformOrDecodeError),
		test{name: "DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, w)
		}},
		test{name: "GetListWithErrorAggregation", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGetListWithErrorAggregation(ctx, t, w.deleter(), corruption(ctx))
		}},
		test{name: "WatchWithUnsafeDelete", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestWatchWithUnsafeDelete(ctx, t, w, corruption(ctx))
		}})
	return append(tests, with(features.AllowUnsafeMalformedObjectDeletion, false,
		test{name: "GetListWithoutErrorAggregation", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGetListWithoutErrorAggregation(ctx, t, w, corruption(ctx))
		}})...)
}

func lists() []test {
	counted := func(name string, run func(context.Context, *testing.T, storage.Interface, storagetesting.CallsValidation)) test {
		return test{name: name, run: func(ctx context.Context, t *testing.T, w *world) { run(ctx, t, w.Interface, w.calls) }}
	}
	tests := []test{
		plain("ListPaging", storagetesting.RunTestListPaging),
		{name: "GetListNonRecursive", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, w.bump, w)
		}},
		plain("GetListRecursivePrefix", storagetesting.RunTestGetListRecursivePrefix),
		plain("NamespaceScopedList", storagetesting.RunTestNamespaceScopedList),
		{name: "ListInconsistentContinuation", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, w, w.compact)
		}},
		{name: "ListResourceVersionMatch", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListResourceVersionMatch(ctx, t, w)
		}},
	}
	// The look at the compactor's key would be counted.
	tests = append(tests, with(features.ListFromCacheSnapshot, false,
		counted("ListContinuation", storagetesting.RunTestListContinuation),
		counted("ListPaginationRareObject", storagetesting.RunTestListPaginationRareObject),
		counted("ListContinuationWithFilter", storagetesting.RunTestListContinuationWithFilter))...)
	return append(tests, with(features.ListFromCacheSnapshot, true,
		test{name: "CompactRevision", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestCompactRevision(ctx, t, w, w.bump, w.compact)
		}})...)
}

// streamedLists are the lists that the store makes by a range stream if it may.
func streamedLists() []test {
	return []test{
		{name: "List", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestList(ctx, t, w, w.compact, false, w.lists)
			w.streamed(t)
		}},
		{name: "ConsistentList", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestConsistentList(ctx, t, w, w.bump, false, true, false)
			w.streamed(t)
		}},
	}
}

func watches() []test {
	return []test{
		plain("Watch", storagetesting.RunTestWatch),
		plain("ClusterScopedWatch", storagetesting.RunTestClusterScopedWatch),
		plain("NamespaceScopedWatch", storagetesting.RunTestNamespaceScopedWatch),
		plain("DeleteTriggerWatch", storagetesting.RunTestDeleteTriggerWatch),
		{name: "WatchFromZero", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestWatchFromZero(ctx, t, w, w.compact)
		}},
		plain("WatchFromNonZero", storagetesting.RunTestWatchFromNonZero),
		plain("DelayedWatchDelivery", storagetesting.RunTestDelayedWatchDelivery),
		{name: "WatchError", run: func(ctx context.Context, t *testing.T, w *world) { storagetesting.RunTestWatchError(ctx, t, w) }},
		plain("WatchContextCancel", storagetesting.RunTestWatchContextCancel),
		plain("WatcherTimeout", storagetesting.RunTestWatcherTimeout),
		plain("WatchDeleteEventObjectHaveLatestRV", storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
		plain("WatchInitializationSignal", storagetesting.RunTestWatchInitializationSignal),
		{name: "ProgressNotify", progress: true, run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunOptionalTestProgressNotify(ctx, t, w, w.bump)
		}},
		{name: "WatchDispatchBookmarkEvents", progress: true, run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, w, false)
		}},
		plain("SendInitialEventsBackwardCompatibility", storagetesting.RunSendInitialEventsBackwardCompatibility),
		{name: "WatchErrorIsBlockingFurtherEvents", run: func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, w)
		}},
	}
}

// streamedWatches are the watches that begin with a list.
func streamedWatches() []test {
	semantics := plain("WatchSemantics", storagetesting.RunWatchSemantics)
	return append(with(features.ConcurrentWatchObjectDecode, true, semantics), semantics,
		plain("WatchSemanticInitialEventsExtended", storagetesting.RunWatchSemanticInitialEventsExtended),
		plain("WatchListMatchSingle", storagetesting.RunWatchListMatchSingle))
}
