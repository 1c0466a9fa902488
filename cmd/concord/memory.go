package main

import "runtime"

// garbageBeforeCollection is how much a server allocates at least before the
// collector runs. State lies outside the Go heap, so that the heap is small, and
// by its own rule the collector would run many times a second: a put through
// gRPC costs a third more CPU so.
const garbageBeforeCollection = 8 << 20

// spareCollections makes the heap look larger by memory that is never touched,
// and so never resident: the collector's pace is a share of the heap. It returns
// what undoes it.
func spareCollections() func() {
	ballast := make([]byte, garbageBeforeCollection)
	return func() { runtime.KeepAlive(ballast) }
}
