package mvcc

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// Flags of a version record, bits 40–47 of its first word.
const (
	flagTombstone = 1 << (40 + iota) // a delete: no create, version, lease, value
	flagFirst                        // version 1: no create and version words
	flagLease
	flagExpires
	flagSub   // not the first change of its revision
	flagLarge // a mapping of its own; the value's length is a word
	flagDead  // of no use any more; its page can forget it
	flagList  // no version but the list of a revision's versions
)

// Flags of a key record, in its second word.
const (
	keyLenMask   = 1<<17 - 1
	keySeparator = 1 << 17 // no key but a separator of the tree
	keyDead      = 1 << 63 // in the first word
	maxKey       = 64 << 10
)

// largeRoom is the most that comes before a value in its record.
const largeRoom = 9 * 8

func pad8(n int64) int64 { return (n + 7) &^ 7 }

// version is a version record, by words; see the package comment.
type version struct{ w *[8]uint64 }

func (s *Store) version(r ref) version { return version{(*[8]uint64)(s.mem.at(r))} }

// head is the word that changes: the previous version is cut off by
// compaction. Readers never follow it below what they may read.
func (v version) head() uint64       { return atomic.LoadUint64(&v.w[0]) }
func (v version) setHead(h uint64)   { atomic.StoreUint64(&v.w[0], h) }
func (v version) prev() ref          { return ref(v.head() & refMask) }
func (v version) setPrev(r ref)      { v.setHead(v.head()&^refMask | uint64(r)) }
func (v version) mod() kv.Revision   { return kv.Revision(v.w[2]) }
func (v version) tombstone() bool    { return v.head()&flagTombstone != 0 }
func (v version) key() ref           { return ref(atomic.LoadUint64(&v.w[1]) & refMask) }
func (v version) setKey(r ref)       { atomic.StoreUint64(&v.w[1], v.w[1]&^refMask|uint64(r)) }
func (v version) word(i int) *uint64 { return (*uint64)(unsafe.Add(unsafe.Pointer(v.w), i*8)) }

// fields are the words of a version behind the fixed three.
type fields struct {
	create  kv.Revision
	version int64
	lease   kv.LeaseID
	expires kv.Time
	sub     int64
	value   []byte // in the page
}

// fixedSize is how many bytes of a version with these flags come before its value.
func fixedSize(head uint64) int64 {
	n := int64(3)
	if head&(flagFirst|flagTombstone) == 0 {
		n += 2
	}
	return (n + int64(bits.OnesCount64(head&(flagLease|flagExpires|flagSub|flagLarge)))) * 8
}

func (v version) fields() (f fields) {
	head, at := v.head(), 3
	next := func() uint64 { at++; return *v.word(at - 1) }
	switch {
	case head&flagTombstone != 0:
	case head&flagFirst != 0:
		f.create, f.version = v.mod(), 1
	default:
		f.create = kv.Revision(next())
		f.version = int64(next())
	}
	if head&flagLease != 0 {
		f.lease = kv.LeaseID(next())
	}
	if head&flagExpires != 0 {
		f.expires = kv.Time(next())
	}
	if head&flagSub != 0 {
		f.sub = int64(next())
	}
	n := v.w[1] >> 40
	if head&flagLarge != 0 {
		n = next()
	}
	f.value = unsafe.Slice((*byte)(unsafe.Pointer(v.word(at))), n)
	return f
}

// valueLen is the length of the value without looking further than needed.
func (v version) valueLen() int64 {
	if head := v.head(); head&flagLarge != 0 {
		return int64(*v.word(int(fixedSize(head)/8) - 1))
	}
	return int64(v.w[1] >> 40)
}

// size is what the record takes in its page.
func (v version) size() int64 {
	head := v.head()
	if head&flagList != 0 {
		return 32 + 8*int64(v.w[3])
	}
	return fixedSize(head) + pad8(v.valueLen())
}

// touchBytes is how much of a value touch loads.
const touchBytes = 512

// touch loads a byte of each cache line of a short value, so that they come from
// memory at once and not when they are copied. The result means nothing.
func (v version) touch() (sum byte) {
	for at, end := int64(64), min(24+int64(v.w[1]>>40), touchBytes); at < end; at += 64 {
		sum += *(*byte)(unsafe.Add(unsafe.Pointer(v.w), at))
	}
	return sum
}

// record shows version v of key k.
func record(k keyRecord, v version) Record {
	f := v.fields()
	return Record{kv.KeyValue{
		Key: k.bytes(), Value: f.value, CreateRevision: f.create, ModRevision: v.mod(),
		Version: f.version, Lease: f.lease, Expires: f.expires,
	}}
}

// versionHead makes the flags for f and says how large the record will be.
func versionHead(f *fields, mod kv.Revision, tombstone bool) (head uint64, size int64) {
	switch {
	case tombstone:
		head |= flagTombstone
	case f.version == 1 && f.create == mod:
		head |= flagFirst
	}
	if f.lease != 0 {
		head |= flagLease
	}
	if f.expires != 0 {
		head |= flagExpires
	}
	if f.sub != 0 {
		head |= flagSub
	}
	size = fixedSize(head) + pad8(int64(len(f.value)))
	// By the value alone: a snapshot leaves some of the other words out.
	if pad8(int64(len(f.value)))+largeRoom >= largeRecord {
		head |= flagLarge
		size += 8
	}
	return head, size
}

// fill writes the record at p; all but the links. The value may be in its place
// already.
func fill(p unsafe.Pointer, head uint64, mod kv.Revision, f *fields) {
	v, at := version{(*[8]uint64)(p)}, 3
	put := func(x uint64) { *v.word(at) = x; at++ }
	v.w[2] = uint64(mod)
	if head&(flagFirst|flagTombstone) == 0 {
		put(uint64(f.create))
		put(uint64(f.version))
	}
	if head&flagLease != 0 {
		put(uint64(f.lease))
	}
	if head&flagExpires != 0 {
		put(uint64(f.expires))
	}
	if head&flagSub != 0 {
		put(uint64(f.sub))
	}
	v.w[1] = 0
	if head&flagLarge != 0 {
		put(uint64(len(f.value)))
	} else {
		v.w[1] = uint64(len(f.value)) << 40
	}
	if dst := (*byte)(unsafe.Pointer(v.word(at))); dst != unsafe.SliceData(f.value) {
		copy(unsafe.Slice(dst, len(f.value)), f.value)
	}
}

// keyRecord is a key record or a separator of the tree.
type keyRecord struct{ w *[2]uint64 }

func (s *Store) key(r ref) keyRecord { return keyRecord{(*[2]uint64)(s.mem.at(r))} }

// newest is the reference to the latest version, committed or not.
func (k keyRecord) newest() ref     { return ref(atomic.LoadUint64(&k.w[0]) & refMask) }
func (k keyRecord) setNewest(r ref) { atomic.StoreUint64(&k.w[0], uint64(r)) }
func (k keyRecord) hash() uint32    { return uint32(k.w[1] >> 32) }
func (k keyRecord) size() int64     { return 16 + pad8(int64(k.w[1]&keyLenMask)) }

func (k keyRecord) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(k.w), 16)), k.w[1]&keyLenMask)
}

// newKey writes a key record; hash are the upper bits of the key's hash.
func newKey(b *bump, key []byte, hash uint32, flags uint64) (ref, keyRecord) {
	r, p := b.alloc(16 + pad8(int64(len(key))))
	k := keyRecord{(*[2]uint64)(p)}
	k.w[0] = 0
	k.w[1] = uint64(hash)<<32 | flags | uint64(len(key))
	copy(k.bytes(), key)
	return r, k
}

// fragment is the part of key that tree nodes compare: eight bytes after a
// prefix, padded with zeros. Equal fragments do not make equal keys.
func fragment(key []byte, prefix int) uint64 {
	if len(key) >= prefix+8 {
		return binary.BigEndian.Uint64(key[prefix:])
	}
	var b [8]byte
	if len(key) > prefix {
		copy(b[:], key[prefix:])
	}
	return binary.BigEndian.Uint64(b[:])
}

// commonPrefix is how many bytes a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := 0; i < n; i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// separator is the shortest key above left and not above right.
func separator(left, right []byte) []byte { return right[:commonPrefix(left, right)+1] }

func compareKeys(a, b []byte) int { return bytes.Compare(a, b) }
