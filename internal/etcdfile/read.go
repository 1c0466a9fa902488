package etcdfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/concord-kv/concord/kv"
)

// File is the latest state that a database file of etcd holds: a snapshot, or
// the file member/snap/db of a data directory whose member is not running.
// Close it once; what it gave must not be used any more then.
type File struct {
	db *bbolt.DB
	tx *bbolt.Tx
	// Revision is the last in the file, Version the layout's, x.y.z; empty
	// before etcd 3.6.
	Revision kv.Revision
	Version  string
	// Leases by id, with TTL and, where the file has it, what was left.
	Leases []kv.LeaseResult
	// AuthEnabled says that users had to name themselves.
	AuthEnabled bool

	latest []entry // by key
}

// entry is the last record of a key.
type entry struct{ key, record []byte }

// Open opens a file and finds the last record of each key, in some 50 bytes of
// memory for each version. A file with a checksum behind it, as snapshots have,
// is held against that. In another one, damage is found where it breaks the
// order of the records or a structure; not in a value, as in etcd.
func Open(path string) (_ *File, err error) {
	if err := checksum(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := &File{}
	// bbolt panics at pages that make no sense, and lengths that do not may
	// lead behind the file. Its own Check does so on goroutines of its own.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged("%v", r)
		}
		if err != nil {
			_ = f.Close()
			err = fmt.Errorf("open %s: %w", path, err)
		}
	}()
	if f.db, err = bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true, Timeout: openTimeout}); err != nil {
		return nil, err
	}
	if f.tx, err = f.db.Begin(false); err != nil {
		return nil, err
	}
	return f, f.load()
}

// Close gives everything back.
func (f *File) Close() error {
	var err error
	if f.tx != nil {
		err = f.tx.Rollback()
	}
	if f.db != nil {
		if cerr := f.db.Close(); err == nil {
			err = cerr
		}
	}
	return err
}

func damaged(format string, args ...any) error {
	return kv.Errorf(kv.DataLoss, "the file is damaged, or none of etcd: %s: %w", fmt.Sprintf(format, args...), kv.ErrCorrupt)
}

// checksum finds out that the checksum that stands behind the file, if there is
// one, is right. Pages are multiples of 512 bytes (etcd, etcdutl/snapshot).
func checksum(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() - sha256.Size
	if info.Size()%512 != sha256.Size || size == 0 {
		return nil
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, size); err != nil {
		return err
	}
	want, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(want, h.Sum(nil)) {
		err = damaged("its checksum is wrong")
	}
	return err
}

func (f *File) load() error {
	keys := f.tx.Bucket([]byte(bucketKey))
	if keys == nil {
		return damaged("it has no keys")
	}
	f.Revision = 1
	if err := keys.ForEach(f.record); err != nil {
		return err
	}
	f.shorten()
	if meta := f.tx.Bucket([]byte(bucketMeta)); meta != nil {
		f.Version = string(meta.Get([]byte("storageVersion")))
	}
	if auth := f.tx.Bucket([]byte(bucketAuth)); auth != nil {
		f.AuthEnabled = bytes.Equal(auth.Get([]byte("authEnabled")), []byte{1})
	}
	leases := f.tx.Bucket([]byte(bucketLease))
	if leases == nil {
		return nil
	}
	return leases.ForEach(func(_, value []byte) error {
		var l kv.LeaseResult
		err := fields(value, func(field protowire.Number, n uint64, _ []byte) {
			switch field {
			case fieldLeaseID:
				l.ID = kv.LeaseID(n)
			case fieldLeaseTTL:
				l.TTL = time.Duration(n) * time.Second
			case fieldLeaseLeft:
				l.Left = time.Duration(n) * time.Second
			}
		})
		f.Leases = append(f.Leases, l)
		return err
	})
}

// record notes a record of the bucket of keys, which come in their order.
func (f *File) record(revision, record []byte) error {
	tombstone := len(revision) == revisionBytes+1 && revision[revisionBytes] == tombstoneMark
	if len(revision) != revisionBytes && !tombstone {
		return damaged("a revision of %d bytes", len(revision))
	}
	main := kv.Revision(binary.BigEndian.Uint64(revision))
	if main < f.Revision {
		return damaged("revision %d comes after %d", main, f.Revision)
	}
	f.Revision = main
	e := entry{record: record}
	if err := fields(record, func(field protowire.Number, _ uint64, b []byte) {
		if field == fieldKey {
			e.key = b
		}
	}); err != nil {
		return err
	}
	if tombstone {
		e.record = nil
	}
	if len(e.key) > 0 { // etcdutl adds one without, to move the revision on
		f.latest = append(f.latest, e)
	}
	return nil
}

// shorten sorts by key and keeps the last record of each, unless it is a
// tombstone.
func (f *File) shorten() {
	slices.SortStableFunc(f.latest, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	kept := f.latest[:0]
	for i, e := range f.latest {
		last := i+1 == len(f.latest) || !bytes.Equal(e.key, f.latest[i+1].key)
		if last && e.record != nil {
			kept = append(kept, e)
		}
	}
	clear(f.latest[len(kept):])
	f.latest = kept
}

// Len counts the keys.
func (f *File) Len() int { return len(f.latest) }

// Key is the i-th in key order. Key and Value lie in the file.
func (f *File) Key(i int) (kv.KeyValue, error) {
	var k kv.KeyValue
	err := fields(f.latest[i].record, func(field protowire.Number, n uint64, b []byte) {
		switch field {
		case fieldKey:
			k.Key = b
		case fieldCreate:
			k.CreateRevision = kv.Revision(n)
		case fieldMod:
			k.ModRevision = kv.Revision(n)
		case fieldVersion:
			k.Version = int64(n)
		case fieldValue:
			k.Value = b
		case fieldLease:
			k.Lease = kv.LeaseID(n)
		}
	})
	return k, err
}

// Search is the index of the first key that is not below key.
func (f *File) Search(key []byte) int {
	i, _ := slices.BinarySearchFunc(f.latest, key, func(e entry, key []byte) int { return bytes.Compare(e.key, key) })
	return i
}

// fields yields the fields of a protobuf message that are numbers or bytes.
func fields(msg []byte, yield func(field protowire.Number, n uint64, b []byte)) error {
	for len(msg) > 0 {
		field, kind, w := protowire.ConsumeTag(msg)
		if w < 0 {
			return damaged("%v", protowire.ParseError(w))
		}
		msg = msg[w:]
		var n uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			n, w = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			b, w = protowire.ConsumeBytes(msg)
		default:
			w = protowire.ConsumeFieldValue(field, kind, msg)
		}
		if w < 0 {
			return damaged("%v", protowire.ParseError(w))
		}
		msg = msg[w:]
		yield(field, n, b)
	}
	return nil
}
