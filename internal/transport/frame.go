package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// kind says what a frame is.
type kind uint8

const (
	kindMessage kind = iota + 1 // a message, on a link
	kindPing                    // a time of the sender's, on Control; also keeps a stream's answer awaited
	kindPong                    // the same time back
	kindHeader                  // the first frame of a stream
	kindData                    // a piece of a stream
	kindEnd                     // a stream is complete
	kindOK                      // the answer to a call, or to a stream that was taken
	kindFailed                  // the text of an error instead
	kindRequest                 // a call
)

const (
	frameHeader = 12
	// minSlab and maxSlab bound the buffers that frames are read into.
	minSlab = 4 << 10
	maxSlab = 256 << 10
	// trusted is how much memory a length is trusted for before as many
	// bytes have come.
	trusted = 2 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFrame is wrapped by every error about bytes that are no frame.
var errFrame = errors.New("transport: damaged frame")

// header returns the frame header for a payload.
func header(k kind, payload []byte) (h [frameHeader]byte) {
	binary.LittleEndian.PutUint32(h[0:], uint32(len(payload)))
	h[4] = byte(k)
	binary.LittleEndian.PutUint32(h[8:], frameCRC(h[:8], payload))
	return h
}

func frameCRC(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// frameReader cuts a stream of bytes into frames with as few reads as it can:
// it reads what there is into a slab and hands out pieces of it.
type frameReader struct {
	r   io.Reader
	max int // longest payload
	// reuse: a payload is valid until the next frame only, and slabs are
	// written again. Otherwise payloads are the caller's for ever.
	reuse bool

	slab       []byte
	start, end int // unread bytes in slab
	size       int // of the next slab
}

// next returns the next frame. Its error is io.EOF only between frames.
func (f *frameReader) next() (kind, []byte, error) {
	if err := f.fill(frameHeader); err != nil {
		return 0, nil, err
	}
	h := f.slab[f.start:][:frameHeader]
	n := int64(binary.LittleEndian.Uint32(h))
	k, sum := kind(h[4]), binary.LittleEndian.Uint32(h[8:])
	if n > int64(f.max) {
		return 0, nil, fmt.Errorf("%w: length %d is over the limit of %d: %w", errFrame, n, f.max, ErrTooLarge)
	}
	if h[5]|h[6]|h[7] != 0 {
		return 0, nil, fmt.Errorf("%w: reserved bytes are set", errFrame)
	}
	total := frameHeader + int(n)
	if err := f.fill(total); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	b := f.slab[f.start:][:total:total]
	if frameCRC(b[:8], b[frameHeader:]) != sum {
		return 0, nil, fmt.Errorf("%w: checksum does not match", errFrame)
	}
	f.start += total
	return k, b[frameHeader:], nil
}

// fill reads until n bytes wait in the slab. Its error is io.EOF when the
// stream ended with none there.
func (f *frameReader) fill(n int) error {
	for f.end-f.start < n {
		have, free := f.end-f.start, len(f.slab)-f.end
		if have+free < n && (n <= trusted || free == 0) || have == 0 && free < minSlab/8 {
			f.makeRoom(n)
			free = len(f.slab) - f.end
		}
		m, err := f.r.Read(f.slab[f.end:])
		if m == free && f.size < maxSlab {
			f.size *= 2 // there was more than room: read more at once
		}
		f.end += m
		if err != nil && f.end-f.start < n {
			if err == io.EOF && f.end > f.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// makeRoom moves the unread bytes to a slab with room for n, or, when that is
// much, for twice of what has come, so that a false length costs no memory.
func (f *frameReader) makeRoom(n int) {
	f.size = max(f.size, minSlab)
	if n > trusted {
		n = min(n, max(trusted, 2*(f.end-f.start)))
	}
	slab := f.slab
	if n = max(n, f.size); !f.reuse || len(slab) < n {
		slab = make([]byte, n)
	}
	f.end = copy(slab, f.slab[f.start:f.end])
	f.start, f.slab = 0, slab
}
