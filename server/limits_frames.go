package server

import "encoding/binary"

// Of HTTP/2 (RFC 9113, sections 4.1, 6 and 3.4) and gRPC's messages in it
// ("gRPC over HTTP2", Length-Prefixed-Message).
const (
	frameHeader = 9
	framesAfter = 24 - len(http2Preface) // what is left of the preface
	prefixBytes = 5

	frameData, frameHeaders, frameReset = 0, 1, 3
	flagEndStream, flagPadded           = 1, 8
)

// What gRPC keeps: for a call that waits for its first message its headers and a
// goroutine; for a frame of data a buffer of its own, of one of the sizes of its
// pool where it is larger than 1 KiB, and its places in lists. Source: grpc-go
// 1.85, mem.defaultBufferPoolSizeExponents and framer.readDataFrame.
const (
	waitingCall = 4 << 10
	frameKept   = 128
)

// kept is the memory of a frame of n bytes.
func kept(n int) int64 {
	switch {
	case n == 0:
		return 0
	case n > 4<<10:
		n = max(n, 16<<10)
	case n > 1<<10:
		n = 4 << 10
	}
	return int64(n) + frameKept
}

// frames follows the frames that one side of a connection sends. All fields
// belong to who reads, or writes.
type frames struct {
	head [frameHeader]byte
	got  int // of head
	left int // of the payload
}

// next takes from b what completes a header, or a piece of payload.
func (f *frames) next(b []byte) (piece, rest []byte, header bool) {
	if f.left > 0 {
		n := min(f.left, len(b))
		f.left -= n
		return b[:n], b[n:], false
	}
	n := copy(f.head[f.got:], b)
	if f.got += n; f.got < frameHeader {
		return nil, b[n:], false
	}
	f.got, f.left = 0, f.size()
	return nil, b[n:], true
}

func (f *frames) size() int      { return int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2]) }
func (f *frames) kind() byte     { return f.head[3] }
func (f *frames) ends() bool     { return f.head[4]&flagEndStream != 0 }
func (f *frames) padded() bool   { return f.head[4]&flagPadded != 0 }
func (f *frames) stream() uint32 { return binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31) }

// incoming counts what gRPC keeps of the messages on one connection that have not
// come whole. It reads the frames as they pass.
type incoming struct {
	arrival
	in, out frames
	watched bool // belongs to the reader, as in does

	// Under arrival.mu.
	calls map[uint32]*call
	spare *call // one that is over, to use again
	sum   int64
	// The frame of data under way: its call, nil for one that is over, and
	// what of it is padding, -1 until that is known.
	call *call
	pad  int
}

// call is one whose client may send more.
type call struct {
	held   int64
	need   int64 // what is left of a message, after its prefix
	prefix uint32
	got    int // of the prefix
}

func newIncoming(of *arrivals, cut func()) *incoming {
	return &incoming{arrival: arrival{of: of, cut: cut}, in: frames{left: framesAfter}, calls: map[uint32]*call{}}
}

// received sees what the client has sent. One goroutine may call it.
func (i *incoming) received(b []byte) {
	i.mu.Lock()
	for len(b) > 0 {
		var piece []byte
		var header bool
		if piece, b, header = i.in.next(b); header {
			i.begin()
		} else if i.call != nil {
			i.data(piece)
		}
		if i.in.left == 0 && i.in.got == 0 {
			i.finish()
		}
	}
	full, holds := i.tellLocked(i.sum), i.sum > 0
	i.mu.Unlock()
	if holds && !i.watched {
		i.watched = true
		i.of.watch(&i.arrival)
	}
	if full {
		i.of.shed()
	}
}

// begin sees a frame's header.
func (i *incoming) begin() {
	f := &i.in
	switch f.kind() {
	case frameHeaders:
		if i.calls[f.stream()] == nil && !f.ends() {
			c := i.spare
			if i.spare = nil; c == nil {
				c = new(call)
			}
			i.calls[f.stream()] = c
			i.charge(c, waitingCall+int64(f.size()))
		}
	case frameData:
		if i.call = i.calls[f.stream()]; i.call != nil {
			i.charge(i.call, kept(f.size()))
		}
		if i.pad = 0; f.padded() {
			i.pad = -1
		}
	}
}

// finish sees the end of a frame.
func (i *incoming) finish() {
	i.call = nil
	switch kind := i.in.kind(); {
	case kind == frameReset, i.in.ends() && (kind == frameData || kind == frameHeaders):
		i.over(i.in.stream())
	}
}

func (i *incoming) charge(c *call, n int64) {
	c.held += n
	i.sum += n
}

func (i *incoming) over(stream uint32) {
	if c := i.calls[stream]; c != nil {
		i.sum -= c.held
		delete(i.calls, stream)
		*c = call{}
		i.spare = c
	}
}

// data follows the messages in a piece of a frame.
func (i *incoming) data(piece []byte) {
	if i.pad < 0 {
		i.pad, piece = int(piece[0]), piece[1:]
	}
	// What comes after piece is padding last, and may be some of piece.
	if more := i.pad - i.in.left; more > 0 {
		piece = piece[:max(0, len(piece)-more)]
	}
	c := i.call
	for len(piece) > 0 {
		if c.need == 0 {
			if c.got > 0 { // the first byte tells of compression
				c.prefix = c.prefix<<8 | uint32(piece[0])
			}
			c.got++
			if piece = piece[1:]; c.got < prefixBytes {
				continue
			}
			c.need, c.got, c.prefix = int64(c.prefix), 0, 0
		} else {
			n := min(c.need, int64(len(piece)))
			c.need -= n
			piece = piece[n:]
		}
		if c.need == 0 { // it is whole
			i.charge(c, -c.held)
			if len(piece) > 0 || i.in.left > i.pad {
				i.charge(c, kept(i.in.size())) // which holds the beginning of the next
			}
		}
	}
}

// sent sees what the server has sent: it ends calls whose clients do not. One
// goroutine may call it.
func (i *incoming) sent(b []byte) {
	for len(b) > 0 {
		var header bool
		if _, b, header = i.out.next(b); !header {
			continue
		}
		if kind := i.out.kind(); kind == frameReset || i.out.ends() && (kind == frameHeaders || kind == frameData) {
			i.mu.Lock()
			if c := i.calls[i.out.stream()]; c != nil && c == i.call {
				i.call = nil // what else comes of it is dropped
			}
			i.over(i.out.stream())
			i.tellLocked(i.sum)
			i.mu.Unlock()
		}
	}
}
