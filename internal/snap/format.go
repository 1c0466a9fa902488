package snap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	version      = 1
	magic        = "concord\x00snap"
	preludeSize  = 20 // magic, version, header length
	fixedSize    = preludeSize + 4 + 5*8 + 4
	crcSize      = 4
	chunkHead    = 8
	endSize      = chunkHead + 8 + 8 + 4
	defaultChunk = 256 << 10
	maxChunk     = 16 << 20
	maxConf      = 1 << 20
	maxHeader    = fixedSize + maxConf + crcSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC32C that goes on from the header's over where a chunk
// stands, its length and its bytes. The end counts as chunk 2^64-1.
func checksum(key uint32, number uint64, b []byte) uint32 {
	var place [12]byte
	binary.LittleEndian.PutUint64(place[:], number)
	binary.LittleEndian.PutUint32(place[8:], uint32(len(b)))
	return crc32.Update(crc32.Update(key, castagnoli, place[:]), castagnoli, b)
}

// layout is what a header says.
type layout struct {
	meta  Meta
	chunk int    // bytes of state in a full chunk
	size  int64  // of the header
	key   uint32 // its CRC32C, from which all others go on
}

func appendHeader(m Meta, chunk int) []byte {
	le := binary.LittleEndian
	b := append([]byte(nil), magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, uint32(fixedSize+len(m.ConfState)+crcSize))
	b = le.AppendUint32(b, uint32(chunk))
	for _, v := range []uint64{m.Index, m.Term, m.Cluster, uint64(m.Time), m.Hash} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, uint32(len(m.ConfState)))
	b = append(b, m.ConfState...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHeader reads and checks a header; raw is its bytes.
func readHeader(r io.Reader, name string) (l layout, raw []byte, err error) {
	le := binary.LittleEndian
	damaged := func(reason string) (layout, []byte, error) {
		return layout{}, nil, &CorruptError{File: name, Reason: reason}
	}
	prelude := make([]byte, preludeSize)
	if err := readFull(r, prelude, name, 0); err != nil {
		return layout{}, nil, err
	}
	if string(prelude[:len(magic)]) != magic {
		return damaged("it does not start as a snapshot")
	}
	size := le.Uint32(prelude[16:])
	if size < preludeSize+crcSize || size > maxHeader {
		return damaged(fmt.Sprintf("a header of %d bytes is impossible", size))
	}
	raw = make([]byte, size)
	copy(raw, prelude)
	if err := readFull(r, raw[preludeSize:], name, preludeSize); err != nil {
		return layout{}, nil, err
	}
	crc := le.Uint32(raw[size-crcSize:])
	if crc32.Checksum(raw[:size-crcSize], castagnoli) != crc {
		return damaged("the header does not match its checksum")
	}
	if v := le.Uint32(raw[len(magic):]); v != version {
		if name == "" {
			name = "the snapshot stream"
		}
		return layout{}, nil, fmt.Errorf("%w: %s has snapshot format %d, this program reads %d: use the program that wrote it, or a newer one",
			ErrFormat, name, v, version)
	}
	if size < fixedSize+crcSize || le.Uint32(raw[fixedSize-4:]) != size-fixedSize-crcSize {
		return damaged("the header has another length than its parts")
	}
	num := func(i int) uint64 { return le.Uint64(raw[preludeSize+4+8*i:]) }
	l.meta = Meta{Index: num(0), Term: num(1), Cluster: num(2), Time: int64(num(3)), Hash: num(4)}
	if conf := raw[fixedSize : size-crcSize]; len(conf) > 0 {
		l.meta.ConfState = append([]byte(nil), conf...)
	}
	l.chunk = int(le.Uint32(raw[preludeSize:]))
	if l.chunk < 1 || l.chunk > maxChunk {
		return damaged(fmt.Sprintf("a chunk size of %d bytes is impossible", l.chunk))
	}
	l.size, l.key = int64(size), crc
	return l, raw, nil
}

func readFull(r io.Reader, b []byte, name string, off int64) error {
	n, err := io.ReadFull(r, b)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &CorruptError{File: name, Offset: off + int64(n), Reason: "it ends in the middle"}
	case name == "":
		return fmt.Errorf("read snapshot: %w", err)
	}
	return fmt.Errorf("read snapshot %s: %w", name, err)
}

// tally is what the end of a snapshot says of the whole.
type tally struct {
	chunks uint64
	bytes  uint64
	sum    uint32 // CRC32C over the chunks' CRCs
}

func (t *tally) add(crc uint32, n int) {
	t.chunks++
	t.bytes += uint64(n)
	t.sum = crc32.Update(t.sum, castagnoli, binary.LittleEndian.AppendUint32(nil, crc))
}

func (t tally) append(key uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, chunkHead, endSize)
	b = le.AppendUint64(b, t.chunks)
	b = le.AppendUint64(b, t.bytes)
	b = le.AppendUint32(b, t.sum)
	le.PutUint32(b[4:], checksum(key, ^uint64(0), b[chunkHead:]))
	return b
}

// parseEnd reads an end of endSize bytes; false if it does not check.
func parseEnd(key uint32, b []byte) (tally, bool) {
	le := binary.LittleEndian
	t := tally{le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint32(b[24:])}
	return t, le.Uint32(b) == 0 && le.Uint32(b[4:]) == checksum(key, ^uint64(0), b[chunkHead:])
}

// encoder writes a snapshot to w.
type encoder struct {
	w     io.Writer
	key   uint32
	buf   []byte // chunk head and bytes
	n     int    // bytes of state in buf
	tally tally
	err   error
}

func newEncoder(w io.Writer, m Meta, chunk int) (*encoder, error) {
	if len(m.ConfState) > maxConf {
		return nil, fmt.Errorf("snap: a configuration of %d bytes is more than %d", len(m.ConfState), maxConf)
	}
	h := appendHeader(m, chunk)
	if _, err := w.Write(h); err != nil {
		return nil, err
	}
	key := binary.LittleEndian.Uint32(h[len(h)-crcSize:])
	return &encoder{w: w, key: key, buf: make([]byte, chunkHead+chunk)}, nil
}

// Write adds bytes of state.
func (e *encoder) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 && e.err == nil {
		n := copy(e.buf[chunkHead+e.n:], p)
		e.n += n
		p = p[n:]
		done += n
		if chunkHead+e.n == len(e.buf) {
			e.flush()
		}
	}
	return done, e.err
}

func (e *encoder) flush() {
	if e.n == 0 || e.err != nil {
		return
	}
	b := e.buf[:chunkHead+e.n]
	crc := checksum(e.key, e.tally.chunks, b[chunkHead:])
	binary.LittleEndian.PutUint32(b, uint32(e.n))
	binary.LittleEndian.PutUint32(b[4:], crc)
	e.tally.add(crc, e.n)
	e.n = 0
	_, e.err = e.w.Write(b)
}

// finish writes the last chunk and the end.
func (e *encoder) finish() error {
	e.flush()
	if e.err == nil {
		_, e.err = e.w.Write(e.tally.append(e.key))
	}
	return e.err
}

// decoder reads and verifies a snapshot in order.
type decoder struct {
	r      io.Reader
	name   string
	raw    io.Writer // gets the file's bytes once they are verified, if not nil
	layout layout
	off    int64
	buf    []byte
	tally  tally
	short  bool // a chunk was not full: it was the last
}

func newDecoder(r io.Reader, name string, raw io.Writer) (*decoder, error) {
	l, head, err := readHeader(r, name)
	if err != nil {
		return nil, err
	}
	d := &decoder{r: r, name: name, raw: raw, layout: l, off: l.size, buf: make([]byte, max(endSize, chunkHead+l.chunk))}
	return d, d.forward(head)
}

func (d *decoder) forward(b []byte) error {
	if d.raw == nil {
		return nil
	}
	_, err := d.raw.Write(b)
	return err
}

func (d *decoder) corrupt(reason string, args ...any) error {
	return &CorruptError{File: d.name, Offset: d.off, Reason: fmt.Sprintf(reason, args...)}
}

// next returns the next chunk's bytes, valid until the next call, or io.EOF
// when the whole snapshot was read and checks.
func (d *decoder) next() ([]byte, error) {
	head := d.buf[:chunkHead]
	if err := readFull(d.r, head, d.name, d.off); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint32(head))
	if n == 0 {
		return nil, d.end()
	}
	if n > d.layout.chunk || d.short {
		return nil, d.corrupt("chunk %d cannot have %d bytes", d.tally.chunks, n)
	}
	b := d.buf[chunkHead : chunkHead+n]
	if err := readFull(d.r, b, d.name, d.off+chunkHead); err != nil {
		if c := new(CorruptError); errors.As(err, &c) {
			return nil, d.corrupt("chunk %d of %d bytes ends at byte %d", d.tally.chunks, n, c.Offset)
		}
		return nil, err
	}
	crc := checksum(d.layout.key, d.tally.chunks, b)
	if crc != binary.LittleEndian.Uint32(head[4:]) {
		return nil, d.corrupt("chunk %d does not match its checksum", d.tally.chunks)
	}
	d.tally.add(crc, n)
	d.short = n < d.layout.chunk
	d.off += int64(chunkHead + n)
	return b, d.forward(d.buf[:chunkHead+n])
}

func (d *decoder) end() error {
	b := d.buf[:endSize]
	if err := readFull(d.r, b[chunkHead:], d.name, d.off+chunkHead); err != nil {
		return err
	}
	t, ok := parseEnd(d.layout.key, b)
	if !ok {
		return d.corrupt("the end does not match its checksum")
	}
	if t != d.tally {
		return d.corrupt("the end counts %d chunks and %d bytes, there are %d and %d, or their checksums differ",
			t.chunks, t.bytes, d.tally.chunks, d.tally.bytes)
	}
	d.off += endSize
	if err := d.forward(b); err != nil {
		return err
	}
	return io.EOF
}

// all reads to the end and returns what the snapshot is of.
func (d *decoder) all() (Meta, error) {
	for {
		if _, err := d.next(); err == io.EOF {
			m := d.layout.meta
			m.Size = int64(d.tally.bytes)
			return m, nil
		} else if err != nil {
			return Meta{}, err
		}
	}
}

// last checks that nothing follows the end.
func (d *decoder) last() error {
	if n, err := io.ReadFull(d.r, d.buf[:1]); n > 0 {
		return d.corrupt("bytes follow the end")
	} else if err != io.EOF {
		return fmt.Errorf("read snapshot: %w", err)
	}
	return nil
}

// Write encodes a snapshot to any writer, such as a backup's. It returns m with
// its Size.
func Write(w io.Writer, m Meta, write func(io.Writer) error) (Meta, error) {
	return encode(w, m, defaultChunk, write)
}

func encode(w io.Writer, m Meta, chunk int, write func(io.Writer) error) (Meta, error) {
	e, err := newEncoder(w, m, chunk)
	if err != nil {
		return Meta{}, err
	}
	if err := write(e); err != nil {
		return Meta{}, err
	}
	m.Size = int64(e.tally.bytes) + int64(e.n)
	return m, e.finish()
}

// Verify reads a whole snapshot file, to the end of r, and tells whether each
// bit of it is as it was written.
func Verify(r io.Reader) (Meta, error) {
	d, err := newDecoder(r, "", nil)
	if err != nil {
		return Meta{}, err
	}
	m, err := d.all()
	if err == nil {
		err = d.last()
	}
	return m, err
}
