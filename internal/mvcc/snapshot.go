package mvcc

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/concord-kv/concord/kv"
)

// The stream, all fixed numbers little endian, others as uvarints:
//
//	header   magic (8), revision (8), compacted revision (8), upper bound of keys (8)
//	chunk    kind (4), large values that follow (4), bytes that follow (8), bytes
//	...
//	end      a chunk of kind chunkEnd with the numbers of keys and versions (8, 8)
//
// A chunk of records can be decoded without the others. It holds entries in key
// order, across chunks too. An entry is a key as the length of the prefix it
// shares with the one before in the chunk, the length of the rest and the rest,
// then its versions from the newest kept to the oldest: flags (1), by how much
// its revision lies below the one before (for the first in a chunk below the
// stream's),
// unless first or tombstone how much the create revision lies below that and
// the version, then lease, expiry and place in its revision where flagged, for
// puts the length of the value and, unless large, the value.
//
// An entry whose versions do not fit is continued in the next chunk: there its
// shared length is entryContinued and no key is given. A large value is a chunk
// of its own behind the chunk of its record.
//
// What is written is what can be read at the compacted revision and above: of
// each key the versions from there on and the one that holds there.
const (
	streamMagic = "ccdmvcc\x01"
	headerSize  = 32
	chunkHeader = 16
	chunkBytes  = 256 << 10
	// maxChunk bounds what a decoder buffers: a chunk ends after the record
	// that fills it, and the largest record is one below largeRecord with the
	// longest key.
	maxChunk = chunkBytes + largeRecord + maxKey + 128
	// entryContinued is more than any key shares.
	entryContinued = maxKey + 1

	chunkRecords = 1
	chunkLarge   = 2
	chunkEnd     = 3

	wireTombstone = 1 << 0
	wireFirst     = 1 << 1
	wireLease     = 1 << 2
	wireExpires   = 1 << 3
	wireSub       = 1 << 4
	wireLarge     = 1 << 5
	wireMore      = 1 << 7 // another version of the key follows in this chunk
)

// snapshotWriter encodes a view.
type snapshotWriter struct {
	v       View
	w       io.Writer
	written int64

	chunk  []byte   // begins with room for the header
	large  [][]byte // values that follow it
	last   []byte   // key before in this chunk
	nKeys  uint64
	nVers  uint64
	chains [leafItems][]ref // what is kept of each key of a leaf, newest first
	failed error

	touched byte // keeps the compiler from leaving touch out
}

// WriteTo writes what can be read through the view, history included, for
// [Store.Load]. It holds about half a megabyte.
func (v View) WriteTo(w io.Writer) (int64, error) {
	if !v.open {
		return 0, kv.ErrClosed
	}
	e := &snapshotWriter{v: v, w: w}
	e.chunk = make([]byte, chunkHeader, maxChunk)
	header := append(make([]byte, 0, headerSize), streamMagic...)
	header = binary.LittleEndian.AppendUint64(header, uint64(v.rev))
	header = binary.LittleEndian.AppendUint64(header, uint64(v.compacted))
	// Keys that the view sees are not removed while it is open.
	header = binary.LittleEndian.AppendUint64(header, uint64(v.s.hash.live.Load()))
	e.write(header)
	v.s.tree.walk(nil, []byte{0}, func(b *keyBatch) bool {
		e.follow(b)
		for i, r := range b.refs[:b.n] {
			if len(e.chains[i]) > 0 {
				e.key(v.s.key(r), e.chains[i])
			}
		}
		return e.failed == nil
	})
	e.flush()
	end := binary.LittleEndian.AppendUint64(make([]byte, chunkHeader, chunkHeader+16), e.nKeys)
	end = binary.LittleEndian.AppendUint64(end, e.nVers)
	putChunkHeader(end, chunkEnd, 0)
	e.write(end)
	if e.failed != nil {
		return e.written, fmt.Errorf("write snapshot: %w", e.failed)
	}
	return e.written, nil
}

func putChunkHeader(b []byte, kind, large uint32) {
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], large)
	binary.LittleEndian.PutUint64(b[8:], uint64(len(b)-chunkHeader))
}

func (e *snapshotWriter) write(b []byte) {
	if e.failed == nil {
		n, err := e.w.Write(b)
		e.written += int64(n)
		e.failed = err
	}
}

// flush writes the chunk and the large values that belong to it.
func (e *snapshotWriter) flush() {
	if len(e.chunk) > chunkHeader {
		putChunkHeader(e.chunk, chunkRecords, uint32(len(e.large)))
		e.write(e.chunk)
		for _, value := range e.large {
			var header [chunkHeader]byte
			binary.LittleEndian.PutUint32(header[:], chunkLarge)
			binary.LittleEndian.PutUint64(header[8:], uint64(len(value)))
			e.write(header[:])
			e.write(value)
		}
	}
	e.chunk, e.large, e.last = e.chunk[:chunkHeader], e.large[:0], nil
}

// follow finds the versions that the view keeps of the keys of a leaf, and has
// their values on the way into the cache. It goes one step along all chains before
// the next, so that the cache misses overlap: one after another they are two
// thirds of what a snapshot of much history costs.
func (e *snapshotWriter) follow(b *keyBatch) {
	s, rev, compacted := e.v.s, e.v.rev, e.v.compacted
	var at [leafItems]ref
	for i := range b.n {
		e.chains[i] = e.chains[i][:0]
		at[i] = s.key(b.refs[i]).newest()
	}
	for more := true; more; {
		more = false
		for i, r := range at[:b.n] {
			if r == 0 {
				continue
			}
			v := s.version(r)
			mod := v.mod()
			if mod <= rev && (mod >= compacted || !v.tombstone()) {
				e.chains[i] = append(e.chains[i], r)
				e.touched += v.touch()
			}
			at[i] = v.prev()
			if mod <= compacted {
				at[i] = 0
			}
			more = more || at[i] != 0
		}
	}
}

// key encodes k with the versions of chain, which is not empty.
func (e *snapshotWriter) key(k keyRecord, chain []ref) {
	s := e.v.s
	e.nKeys++
	e.nVers += uint64(len(chain))
	key := k.bytes()
	shared := commonPrefix(e.last, key)
	e.chunk = binary.AppendUvarint(e.chunk, uint64(shared))
	e.chunk = binary.AppendUvarint(e.chunk, uint64(len(key)-shared))
	e.chunk = append(e.chunk, key[shared:]...)
	e.last = key
	before := e.v.rev
	for i, r := range chain {
		v := s.version(r)
		flags := len(e.chunk)
		e.version(v, before)
		before = v.mod()
		full := len(e.chunk) >= chunkBytes || len(e.large) >= 16
		switch last := i == len(chain)-1; {
		case !full && !last:
			e.chunk[flags] |= wireMore
		case full:
			e.flush()
			if !last {
				e.chunk = binary.AppendUvarint(e.chunk, entryContinued)
				before = e.v.rev
			}
		}
	}
}

func (e *snapshotWriter) version(v version, before kv.Revision) {
	head, f, mod := v.head(), v.fields(), v.mod()
	var flags byte
	put := func(on bool, flag byte) bool {
		if on {
			flags |= flag
		}
		return on
	}
	put(head&flagTombstone != 0, wireTombstone)
	put(head&flagFirst != 0, wireFirst)
	put(head&flagLarge != 0, wireLarge)
	at := len(e.chunk)
	b := append(e.chunk, 0)
	b = binary.AppendUvarint(b, uint64(before-mod))
	if head&(flagFirst|flagTombstone) == 0 {
		b = binary.AppendUvarint(b, uint64(mod-f.create))
		b = binary.AppendUvarint(b, uint64(f.version))
	}
	if put(f.lease != 0, wireLease) {
		b = binary.AppendUvarint(b, uint64(f.lease))
	}
	if put(f.expires != 0, wireExpires) {
		b = binary.AppendUvarint(b, uint64(f.expires))
	}
	if put(f.sub != 0 && mod >= e.v.compacted, wireSub) {
		b = binary.AppendUvarint(b, uint64(f.sub))
	}
	if head&flagTombstone == 0 {
		b = binary.AppendUvarint(b, uint64(len(f.value)))
		if head&flagLarge != 0 {
			e.large = append(e.large, f.value)
		} else {
			b = append(b, f.value...)
		}
	}
	b[at] = flags
	e.chunk = b
}
