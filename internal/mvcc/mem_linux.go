package mvcc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages: random reads of many pages are bound by
// address translation. That the kernel may have none is no error.
func adviseHuge(p unsafe.Pointer, n int64) {
	_ = unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_HUGEPAGE)
}

// populate faults memory in ahead of its use, many pages a call. Kernels before
// 5.14 do not know the advice; then each page costs its own fault.
func populate(p unsafe.Pointer, n int64) {
	_ = unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_POPULATE_WRITE)
}
