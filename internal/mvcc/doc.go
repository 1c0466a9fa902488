// Package mvcc is Concord's key space: every key by revision, with history
// until it is compacted, in pages outside the Go heap.
//
// One goroutine writes; any number read without locks, through a [View] or
// [Store.Get]. The package is pure: what it answers depends on what was written
// and on nothing else.
package mvcc
