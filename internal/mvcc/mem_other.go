//go:build !linux

package mvcc

import "unsafe"

// Only Linux takes these advices.

func adviseHuge(unsafe.Pointer, int64) {}

func populate(unsafe.Pointer, int64) {}
