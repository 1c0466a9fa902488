package wal

import (
	"errors"
	"fmt"
	"os"

	"github.com/concord-kv/concord/internal/vfs"
)

// readers is how many read buffers are kept for use again.
const readers = 4

// withDefaults fills o in.
func (o Options) withDefaults() Options {
	const smallest = 4 * sectorSize
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	o.SegmentSize = max(o.SegmentSize/sectorSize*sectorSize, smallest)
	if o.Reserve == 0 {
		o.Reserve = o.SegmentSize / 4
	}
	if o.Reserve > 0 {
		o.Reserve = max(o.Reserve/sectorSize*sectorSize, smallest)
	}
	return o
}

// Open opens the log in dir, or makes an empty one, repairs a torn tail and
// makes durable what it found. Damage is a *CorruptError, a newer format
// ErrFormat; then nothing was changed.
func Open(fs vfs.FS, dir string, o Options) (_ *Log, err error) {
	o = o.withDefaults()
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	f, err := scanDir(fs, dir, os.O_RDWR)
	if err == nil {
		err = f.repair()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	l := &Log{fs: fs, dir: dir, bufs: make(chan []byte, readers), x: f.index}
	l.pre = newPreparer(fs, dir, o, f)
	l.segs = append(l.segs, f.segs[:f.current+1]...)
	if len(l.segs) == 0 {
		seg, err := l.pre.take(1)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make log: %w", err), l.pre.close())
		}
		l.segs = append(l.segs, seg)
	}
	l.seg = l.segs[len(l.segs)-1]
	l.enc.seq, l.enc.chain = f.seq, f.chain
	l.pre.advance(l.seg)
	l.pre.start()
	return l, nil
}

// repair makes the last write durable (it was read from the page cache and may
// never have reached the disk), and only then removes leftovers: it may be that
// write which says that they are. A torn tail stays: the log goes on in the next
// segment. Zeros over it could be lost by a sync that fails, come back with the
// next power cut, and then look like damage.
func (f *found) repair() error {
	if f.seq > 0 {
		if err := f.rewrite(f.buffer()); err != nil {
			return fmt.Errorf("make the log's last write durable: %w", err)
		}
	}
	for _, path := range f.stale {
		if err := f.fs.Remove(path); err != nil {
			return fmt.Errorf("remove leftover of the log: %w", err)
		}
	}
	if err := f.fs.SyncDir(f.dir); err != nil {
		return fmt.Errorf("sync log directory: %w", err)
	}
	if f.torn {
		for _, seg := range f.segs[f.active : f.current+1] {
			seg.size = seg.used.Load() * sectorSize // takes no more
		}
	}
	return nil
}

// rewrite writes the last write's sectors once more and syncs them. A plain
// sync is not enough: after a sync that failed, the kernel counts pages as
// clean that the disk does not have.
func (f *found) rewrite(buf []byte) error {
	seg := f.segs[f.active]
	end := seg.used.Load() * sectorSize
	for off := f.writeStart * sectorSize; off < end; {
		b := buf[:min(int64(len(buf)), end-off)]
		if _, err := seg.file.ReadAt(b, off); err != nil {
			return err
		}
		n, err := seg.file.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return seg.file.Sync()
}
