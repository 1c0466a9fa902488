package transport

import (
	"net"
	"sync"
	"sync/atomic"
)

const (
	// inlineBytes is the longest payload that is copied next to others, so
	// that many frames go in one piece; a longer one is written from where
	// it lies.
	inlineBytes = 4 << 10
	// chunkBytes is the size of the buffers they are copied into.
	chunkBytes = 32 << 10
	// flushBytes is about how much is handed to the kernel at a time, which
	// is also the step in which a queue gets shorter.
	flushBytes = 1 << 20
)

// outbox is the queue of one connection: any number put, one writes. What waits
// is written with one call of the kernel.
type outbox struct {
	limit int64
	sent  *atomic.Uint64 // bytes written

	mu     sync.Mutex
	wake   sync.Cond
	closed bool
	bytes  int64    // queued or being written
	segs   [][]byte // to be written, in order
	chunk  []byte   // where small frames are copied to; never written twice
	open   bool     // the last of segs is the end of chunk
}

func newOutbox(limit int) *outbox {
	b := &outbox{limit: int64(limit), sent: new(atomic.Uint64)}
	b.wake.L = &b.mu
	return b
}

// put queues a frame, unless the queue is full or closed.
func (b *outbox) put(k kind, payload []byte) bool {
	h := header(k, payload)
	n := int64(frameHeader + len(payload))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.bytes > 0 && b.bytes+n > b.limit {
		return false
	}
	b.bytes += n
	if len(payload) <= inlineBytes {
		b.inline(h[:], payload)
	} else {
		b.inline(h[:], nil)
		b.segs = append(b.segs, payload)
		b.open = false
	}
	b.wake.Signal()
	return true
}

// inline copies a frame, or the header of one, behind the last.
func (b *outbox) inline(head, payload []byte) {
	n := len(head) + len(payload)
	if cap(b.chunk)-len(b.chunk) < n {
		b.chunk, b.open = make([]byte, 0, chunkBytes), false
	}
	at := len(b.chunk)
	b.chunk = append(append(b.chunk, head...), payload...)
	if last := len(b.segs) - 1; b.open {
		b.segs[last] = b.segs[last][:len(b.segs[last])+n]
		return
	}
	b.segs = append(b.segs, b.chunk[at:])
	b.open = true
}

// take waits for something to write and moves about flushBytes of it to segs;
// it returns none when the box is closed.
func (b *outbox) take(segs [][]byte) ([][]byte, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.segs) == 0 && !b.closed {
		b.wake.Wait()
	}
	if b.closed {
		return nil, 0
	}
	var n int64
	k := 0
	for k < len(b.segs) && n < flushBytes {
		n += int64(len(b.segs[k]))
		k++
	}
	segs = append(segs[:0], b.segs[:k]...)
	rest := copy(b.segs, b.segs[k:])
	clear(b.segs[rest:])
	b.segs = b.segs[:rest]
	b.open = b.open && rest > 0
	return segs, n
}

func (b *outbox) wrote(n int64) {
	b.mu.Lock()
	b.bytes -= n
	b.mu.Unlock()
}

// queued returns the bytes that wait.
func (b *outbox) queued() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// close drops what waits and ends the writer.
func (b *outbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.segs, b.chunk, b.bytes = true, nil, nil, 0
	b.wake.Broadcast()
}

// writeTo writes to conn what is put, until the box is closed (nil) or conn
// fails.
func (b *outbox) writeTo(conn net.Conn) error {
	var space [][]byte
	var bufs net.Buffers // declared once: WriteTo moves it to the heap
	for {
		segs, n := b.take(space)
		if segs == nil {
			return nil
		}
		space = segs
		var err error
		if len(segs) == 1 {
			_, err = conn.Write(segs[0])
		} else {
			bufs = segs
			_, err = bufs.WriteTo(conn)
		}
		if err != nil {
			return err
		}
		clear(space)
		b.sent.Add(uint64(n))
		b.wrote(n)
	}
}
