package mvcc

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// decoder turns chunks into records in pages of its own.
type decoder struct {
	l        *loader
	keys     bump
	versions bump

	job *loadJob
	b   []byte // not decoded yet
	key []byte // last key of the chunk
	bad error
	nth int // large values used
}

// decode serves jobs until there are no more.
func (l *loader) decode() {
	d := &decoder{l: l}
	d.keys = bump{a: l.s.mem, kind: pageKeys}
	d.versions = bump{a: l.s.mem, kind: pageVersions}
	for job := range l.jobs {
		d.chunk(job)
		close(job.done)
	}
	d.keys.seal()
	d.versions.seal()
}

func (d *decoder) fail(format string, args ...any) {
	if d.bad == nil {
		d.bad = corrupt(format, args...)
	}
}

func (d *decoder) uvarint(what string) uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("%s after key %.64q is no number", what, d.key)
		d.b = nil
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) take(n uint64, what string) []byte {
	if n > uint64(len(d.b)) {
		d.fail("%s of %d bytes after key %.64q is longer than its chunk", what, n, d.key)
		n = uint64(len(d.b))
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) chunk(job *loadJob) {
	d.job, d.b, d.key, d.nth, d.bad = job, job.payload, d.key[:0], 0, nil
	for first := true; len(d.b) > 0 && d.bad == nil; first = false {
		shared := d.uvarint("the length of a shared prefix")
		if shared == entryContinued {
			if !first {
				d.fail("an entry is continued in the middle of a chunk")
				break
			}
			job.continued = d.versionsOf(0)
			continue
		}
		d.entry(shared, first)
	}
	if d.bad == nil && d.nth != len(job.large) {
		d.fail("%d large values follow a chunk that has %d", len(job.large), d.nth)
	}
	job.err = d.bad
}

// entry decodes a key with its versions.
func (d *decoder) entry(shared uint64, first bool) {
	rest := d.take(d.uvarint("the length of a key"), "a key")
	if d.bad != nil {
		return
	}
	if shared > uint64(len(d.key)) || shared+uint64(len(rest)) > maxKey || len(rest) == 0 {
		d.fail("a key shares %d bytes and adds %d after key %.64q", shared, len(rest), d.key)
		return
	}
	if !first && shared < uint64(len(d.key)) && d.key[shared] >= rest[0] {
		d.fail("a key that begins with %.64q follows key %.64q", append(d.key[:shared:shared], rest...), d.key)
		return
	}
	d.key = append(d.key[:shared], rest...)
	s := d.l.s
	sum := s.hash.sum(d.key)
	r, k := newKey(&d.keys, d.key, uint32(sum>>32), 0)
	newest := d.versionsOf(r)
	if d.bad != nil {
		return
	}
	k.setNewest(newest)
	if v := s.version(newest); !v.tombstone() {
		d.job.sum.live++
		size := int64(len(d.key)) + v.valueLen()
		d.job.sum.bytes += size
		d.job.sum.history -= v.size() // versionsOf counts all
	}
	d.job.sum.keys++
	d.job.keys = append(d.job.keys, r)
	if s.hash.live.Add(1) > d.l.bound {
		d.fail("more keys than the %d announced", d.l.bound)
		return
	}
	s.hash.placeShared(s.hash.both.Load().cur, sum, r)
}

// versionsOf decodes the versions of the key at r and returns the newest.
func (d *decoder) versionsOf(r ref) (newest ref) {
	before := d.l.rev + 1
	var above version
	for more := true; more && d.bad == nil; {
		if len(d.b) == 0 {
			d.fail("key %.64q has no version", d.key)
			return 0
		}
		flags := d.b[0]
		d.b = d.b[1:]
		more = flags&wireMore != 0
		base := before
		if newest == 0 {
			base = d.l.rev
		}
		mod := base - kv.Revision(d.uvarint("a revision"))
		switch {
		case d.bad != nil:
			return 0
		case mod < 1 || mod >= before:
			d.fail("key %.64q has version %d after %d at revision %d", d.key, mod, before, d.l.rev)
			return 0
		case mod < d.l.compacted && flags&wireTombstone != 0, mod <= d.l.compacted && more:
			d.fail("key %.64q has a version at %d that compaction at %d removes", d.key, mod, d.l.compacted)
			return 0
		}
		v := d.version(flags, mod)
		if d.bad != nil {
			return 0
		}
		w := d.l.s.version(v)
		w.w[1] |= uint64(r)
		if newest == 0 {
			newest = v
		} else {
			above.w[0] |= uint64(v)
		}
		above, before = w, mod
		d.job.oldest = v
	}
	return newest
}

// version decodes one and gives it its place in the index.
func (d *decoder) version(flags byte, mod kv.Revision) ref {
	f := fields{create: mod, version: 1}
	tombstone := flags&wireTombstone != 0
	if tombstone && flags&^(wireTombstone|wireSub|wireMore) != 0 || flags&0x40 != 0 {
		d.fail("a version of key %.64q has flags %#x", d.key, flags)
		return 0
	}
	if flags&(wireFirst|wireTombstone) == 0 {
		f.create = mod - kv.Revision(d.uvarint("a create revision"))
		f.version = int64(d.uvarint("a version"))
		if f.create < 1 || f.create > mod || f.version < 1 {
			d.fail("key %.64q at %d has create revision %d and version %d", d.key, mod, f.create, f.version)
		}
	}
	if flags&wireLease != 0 {
		f.lease = kv.LeaseID(d.uvarint("a lease"))
	}
	if flags&wireExpires != 0 {
		f.expires = kv.Time(d.uvarint("an expiry"))
	}
	if flags&wireSub != 0 {
		f.sub = int64(d.uvarint("a place"))
		if f.sub < 1 || mod < d.l.compacted {
			d.fail("key %.64q at %d has place %d", d.key, mod, f.sub)
		}
	}
	var large *largeValue
	if !tombstone {
		size := d.uvarint("the length of a value")
		if flags&wireLarge == 0 {
			f.value = d.take(size, "a value")
		} else if large = d.largeValue(size); large != nil {
			f.value = large.bytes
		}
	}
	head, size := versionHead(&f, mod, tombstone)
	if d.bad == nil && (head&flagLarge != 0) != (large != nil) {
		d.fail("a value of %d bytes of key %.64q is at the wrong place", len(f.value), d.key)
	}
	if d.bad != nil {
		return 0
	}
	r := d.store(head, mod, &f, large)
	d.job.sum.versions++
	d.job.sum.history += size
	if mod >= d.l.compacted {
		d.indexed(mod, f.sub, r)
	}
	return r
}

func (d *decoder) largeValue(size uint64) *largeValue {
	if d.nth == len(d.job.large) || uint64(len(d.job.large[d.nth].bytes)) != size {
		d.fail("key %.64q has a large value of %d bytes that does not follow its chunk", d.key, size)
		return nil
	}
	d.nth++
	return &d.job.large[d.nth-1]
}

func (d *decoder) store(head uint64, mod kv.Revision, f *fields, large *largeValue) ref {
	size := fixedSize(head) + pad8(int64(len(f.value)))
	var r ref
	var p unsafe.Pointer
	mem := d.l.s.mem
	if large != nil {
		at := largeRoom - fixedSize(head)
		r = ref(large.slot)<<offBits | ref(at>>unitShift)
		p = mem.at(r)
		page := mem.page(large.slot)
		page.live, page.maxRev = size, int64(mod)
	} else {
		r, p = d.versions.alloc(size)
		d.versions.maxRev = max(d.versions.maxRev, int64(mod))
	}
	fill(p, head, mod, f)
	*(*uint64)(p) = head
	return r
}

// indexed notes that revision mod made the version at r as its change sub.
func (d *decoder) indexed(mod kv.Revision, sub int64, r ref) {
	if sub > 0 {
		d.job.subs = append(d.job.subs, subChange{mod, sub, r})
		return
	}
	x := &d.l.s.index
	p := x.slot(mod)
	if p == nil {
		d.l.mu.Lock()
		if p = x.slot(mod); p == nil {
			x.grow(mod)
			p = x.slot(mod)
		}
		d.l.mu.Unlock()
	}
	if atomic.SwapUint64(p, uint64(r)) != 0 {
		d.fail("revision %d has two first changes, one of key %.64q", mod, d.key)
	}
}
