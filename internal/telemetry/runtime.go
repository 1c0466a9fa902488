package telemetry

import (
	"runtime"
	"runtime/metrics"
)

// runtimeSamples are what Go's runtime tells without stopping the program, under
// the names that Prometheus's client for Go gives the same figures.
var runtimeSamples = []struct {
	sample, name, help string
	kind               Kind
}{
	{"/sched/goroutines:goroutines", "go_goroutines", "Number of goroutines that currently exist.", Level},
	{"/sched/gomaxprocs:threads", "go_sched_gomaxprocs_threads", "The current runtime.GOMAXPROCS setting.", Level},
	{"/gc/cycles/total:gc-cycles", "go_gc_cycles_total_gc_cycles_total", "Count of all completed GC cycles.", Count},
	{"/gc/heap/allocs:bytes", "go_memstats_alloc_bytes_total", "Total number of bytes allocated in heap until now, even if released already.", Count},
	{"/gc/heap/allocs:objects", "go_memstats_mallocs_total", "Total number of heap objects allocated, both live and gc-ed.", Count},
	{"/gc/heap/frees:objects", "go_memstats_frees_total", "Total number of heap objects frees.", Count},
	{"/gc/heap/objects:objects", "go_memstats_heap_objects", "Number of currently allocated objects.", Level},
	{"/gc/heap/goal:bytes", "go_memstats_next_gc_bytes", "Number of heap bytes when next garbage collection will take place.", Level},
	{"/memory/classes/heap/objects:bytes", "go_memstats_heap_alloc_bytes", "Number of heap bytes allocated and currently in use.", Level},
	{"/memory/classes/heap/objects:bytes", "go_memstats_alloc_bytes", "Number of bytes allocated in heap and currently in use.", Level},
	{"/memory/classes/heap/released:bytes", "go_memstats_heap_released_bytes", "Number of heap bytes released to OS.", Level},
	{"/memory/classes/heap/stacks:bytes", "go_memstats_stack_inuse_bytes", "Number of bytes obtained from system for stack allocator in non-CGO environments.", Level},
	{"/memory/classes/total:bytes", "go_memstats_sys_bytes", "Number of bytes obtained from system.", Level},
}

func runtimeFigures(yield func(Figure)) {
	samples := make([]metrics.Sample, len(runtimeSamples))
	for i := range samples {
		samples[i].Name = runtimeSamples[i].sample
	}
	metrics.Read(samples)
	for i, s := range runtimeSamples {
		if v := samples[i].Value; v.Kind() == metrics.KindUint64 { // else this Go has it no more
			yield(Figure{Name: s.name, Help: s.help, Kind: s.kind, Value: float64(v.Uint64())})
		}
	}
	yield(Figure{
		Name: "go_info", Help: "Information about the Go environment.", Kind: Level,
		Labels: []string{"version", runtime.Version()}, Value: 1,
	})
}
