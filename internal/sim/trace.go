package sim

import (
	"fmt"
	"io"
	"math/bits"
	"time"
)

// trace hashes everything that happens and, where out is set, tells it.
type trace struct {
	hash uint64
	out  io.Writer
}

// mix takes values into the hash.
func (t *trace) mix(values ...uint64) {
	h := t.hash
	for _, v := range values {
		// The constants are those of xxHash64 (Collet).
		h = bits.RotateLeft64(h^v*0xC2B2AE3D27D4EB4F, 31) * 0x9E3779B185EBCA87
	}
	t.hash = h
}

// mixBytes takes bytes into the hash.
func (t *trace) mixBytes(b []byte) { t.mix(uint64(len(b)), digest(b)) }

// on reports whether somebody reads along; formatting costs more than the run.
func (t *trace) on() bool { return t.out != nil }

func (t *trace) tell(now int64, format string, args ...any) {
	fmt.Fprintf(t.out, "%12.6f %s\n", time.Duration(now).Seconds(), fmt.Sprintf(format, args...))
}
