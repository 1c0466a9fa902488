package snap

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/concord-kv/concord/internal/vfs"
)

// Reader reads one snapshot. Read is for one goroutine; ReadChunk may be
// called concurrently.
type Reader struct {
	file   vfs.File
	name   string
	layout layout
	total  tally // what the end says

	dec  *decoder // made by the first Read
	rest []byte   // of its current chunk
	err  error    // that ended Read
}

// NewReader reads a snapshot from a file that is not in a store, such as a
// backup. It reads header and end. Close does not close the file.
func NewReader(f vfs.File, name string) (*Reader, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	l, _, err := readHeader(io.NewSectionReader(f, 0, size), name)
	if err != nil {
		return nil, err
	}
	at := size - endSize
	if at < l.size {
		return nil, &CorruptError{File: name, Offset: size, Reason: "it ends in the middle"}
	}
	var b [endSize]byte
	if err := readFull(io.NewSectionReader(f, at, endSize), b[:], name, at); err != nil {
		return nil, err
	}
	t, ok := parseEnd(l.key, b[:])
	if !ok {
		return nil, &CorruptError{File: name, Offset: at, Reason: "the end does not match its checksum: the file was cut, continued or damaged"}
	}
	// Bounds first, so that nothing overflows below.
	chunk := uint64(l.chunk)
	if t.bytes > uint64(at) || t.chunks != (t.bytes+chunk-1)/chunk || l.size+int64(t.chunks*chunkHead+t.bytes) != at {
		return nil, &CorruptError{File: name, Offset: at, Reason: fmt.Sprintf("the end counts %d chunks and %d bytes, which is not the file's length", t.chunks, t.bytes)}
	}
	l.meta.Size = int64(t.bytes)
	return &Reader{name: name, layout: l, total: t, file: f}, nil
}

func openReader(fs vfs.FS, path string) (*Reader, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(f, path)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return r, nil
}

// Meta says what the snapshot is of.
func (r *Reader) Meta() Meta { return r.layout.meta }

// stream returns a decoder over the whole file.
func (r *Reader) stream(raw io.Writer) (*decoder, error) {
	size := r.layout.size + int64(r.total.chunks*chunkHead+r.total.bytes) + endSize
	return newDecoder(io.NewSectionReader(r.file, 0, size), r.name, raw)
}

// Read reads the state. No byte is returned that was not verified; the last
// one is followed by io.EOF only if the whole file checks.
func (r *Reader) Read(p []byte) (int, error) {
	if r.dec == nil && r.err == nil {
		r.dec, r.err = r.stream(nil)
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		r.rest, r.err = r.dec.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Chunks is the number of chunks.
func (r *Reader) Chunks() int { return int(r.total.chunks) }

// ChunkSize is the length in bytes of every chunk but the last.
func (r *Reader) ChunkSize() int { return r.layout.chunk }

// ReadChunk returns the state's bytes from i*ChunkSize() on, one chunk,
// verified, in buf when that has room for eight bytes more than a chunk.
func (r *Reader) ReadChunk(i int, buf []byte) ([]byte, error) {
	if i < 0 || uint64(i) >= r.total.chunks {
		return nil, fmt.Errorf("snap: chunk %d of %d: %w", i, r.total.chunks, ErrNotFound)
	}
	n := min(int64(r.layout.chunk), int64(r.total.bytes)-int64(i)*int64(r.layout.chunk))
	off := r.layout.size + int64(i)*int64(chunkHead+r.layout.chunk)
	if int64(cap(buf)) < chunkHead+n {
		buf = make([]byte, chunkHead+n)
	}
	buf = buf[:chunkHead+n]
	if err := readFull(io.NewSectionReader(r.file, off, chunkHead+n), buf, r.name, off); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if int64(le.Uint32(buf)) != n || le.Uint32(buf[4:]) != checksum(r.layout.key, uint64(i), buf[chunkHead:]) {
		return nil, &CorruptError{File: r.name, Offset: off, Reason: fmt.Sprintf("chunk %d does not match its checksum", i)}
	}
	return buf[chunkHead:], nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }
