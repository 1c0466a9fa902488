//go:build !linux

package mvcc

import "unsafe"

// adviseHuge does nothing: only Linux takes the advice.
func adviseHuge(unsafe.Pointer, int64) {}
