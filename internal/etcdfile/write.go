package etcdfile

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/concord-kv/concord/kv"
)

// Bounds on one transaction of the file, which is held in memory.
const (
	batchBytes   = 4 << 20
	batchRecords = 20_000
)

// openTimeout bounds the wait for the lock of a file that nobody else knows.
const openTimeout = 10 * time.Second

// Options say what a file states beside the image. All are required.
type Options struct {
	// Version is the etcd version whose layout the file claims, x.y.z.
	Version string
}

// Write makes a file of img and returns it, to be read from its beginning. The
// file has no name any more: it is gone when it is closed, or the process ends
// in whatever way. img stays the caller's to close.
func Write(img *kv.Image, o Options) (_ *os.File, err error) {
	f, err := os.CreateTemp(img.Scratch, "etcd-snapshot-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make snapshot file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	w := &writer{img: img, version: o.Version}
	if w.db, err = openUnnamed(f); err != nil {
		return nil, err
	}
	if err = w.write(); err == nil {
		err = w.db.View(func(tx *bbolt.Tx) error { return f.Truncate(tx.Size()) })
	}
	if cerr := w.db.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("write snapshot file: %w", err)
	}
	return f, nil
}

// openUnnamed opens a database in f by a second descriptor, and takes its name
// away.
func openUnnamed(f *os.File) (*bbolt.DB, error) {
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: openTimeout,
	})
	if rerr := os.Remove(f.Name()); err == nil && rerr != nil {
		_ = db.Close()
		err = rerr
	}
	if err != nil {
		return nil, fmt.Errorf("make snapshot file: %w", err)
	}
	return db, nil
}

// writer fills a file, a bounded batch at a time. The first error sticks.
type writer struct {
	img     *kv.Image
	version string
	db      *bbolt.DB

	tx      *bbolt.Tx
	keys    *bbolt.Bucket
	bytes   int
	records int
	ttls    map[kv.LeaseID]bool
	err     error
}

func (w *writer) write() error {
	w.ttls = map[kv.LeaseID]bool{}
	w.begin()
	for _, name := range [...]string{bucketMeta, bucketLease, bucketAlarm, bucketCluster,
		bucketMembers, bucketRemoved, bucketAuth, bucketUsers, bucketRoles} {
		w.bucket(name)
	}
	if w.err != nil {
		return w.err
	}
	err := w.img.Versions(0, func(sub int64, ev kv.Event) bool {
		w.change(sub, &ev)
		return w.err == nil
	})
	if err != nil {
		w.rollback()
		return err
	}
	w.leases()
	w.meta()
	w.cluster()
	w.auth()
	w.commit()
	return w.err
}

func (w *writer) begin() {
	if w.err != nil {
		return
	}
	w.bytes, w.records = 0, 0
	if w.tx, w.err = w.db.Begin(true); w.err != nil {
		return
	}
	if w.keys = w.bucket(bucketKey); w.keys != nil {
		w.keys.FillPercent = 0.9 // records only come behind, as in etcd
	}
}

func (w *writer) bucket(name string) *bbolt.Bucket {
	if w.err != nil {
		return nil
	}
	var b *bbolt.Bucket
	b, w.err = w.tx.CreateBucketIfNotExists([]byte(name))
	return b
}

func (w *writer) commit() {
	if w.err != nil {
		w.rollback()
		return
	}
	w.err = w.tx.Commit()
}

func (w *writer) rollback() {
	if w.tx != nil {
		_ = w.tx.Rollback()
	}
}

func (w *writer) put(b *bbolt.Bucket, key, value []byte) {
	if w.err != nil {
		return
	}
	w.err = b.Put(key, value)
	w.bytes += len(key) + len(value)
	w.records++
	if w.err == nil && (w.bytes >= batchBytes || w.records >= batchRecords) {
		w.commit()
		w.begin()
	}
}

// change adds a record. The file keeps what it is given until the batch ends.
func (w *writer) change(sub int64, ev *kv.Event) {
	deleted := ev.Type == kv.DeleteEvent
	key := appendRevision(make([]byte, 0, revisionBytes+1), ev.KV.ModRevision, sub, deleted)
	if ev.KV.Expires != 0 && ev.KV.Lease == 0 {
		w.ttls[TTLLease(ev.KV.Expires)] = true
	}
	w.put(w.keys, key, appendRecord(make([]byte, 0, len(ev.KV.Key)+len(ev.KV.Value)+64), ev))
}

func (w *writer) leases() {
	for l := range w.img.Leases {
		delete(w.ttls, l.ID) // somebody's own, whatever its id
		w.lease(l.ID, ttlSeconds(l.TTL), ttlSeconds(l.Left))
	}
	for id := range w.ttls { // in any order: the file sorts
		left := ttlSeconds(expires(id).Sub(w.img.Time))
		w.lease(id, left, left)
	}
}

func (w *writer) lease(id kv.LeaseID, ttl, left int64) {
	value := appendInt(nil, fieldLeaseID, int64(id))
	value = appendInt(value, fieldLeaseTTL, ttl)
	value = appendInt(value, fieldLeaseLeft, left)
	w.put(w.bucket(bucketLease), binary.BigEndian.AppendUint64(nil, uint64(id)), value)
}

// minor is the version without its last number, with .0 instead.
func minor(version string) string {
	for i := len(version) - 1; i >= 0; i-- {
		if version[i] == '.' {
			return version[:i] + ".0"
		}
	}
	return version
}

func (w *writer) meta() {
	number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	w.set(bucketMeta, "consistent_index", number(uint64(w.img.Index)))
	w.set(bucketMeta, "term", number(uint64(w.img.Term)))
	w.set(bucketMeta, "storageVersion", []byte(minor(w.version)))
	if w.img.Compacted > 0 {
		compacted := appendRevision(nil, w.img.Compacted, 0, false)
		w.set(bucketMeta, "scheduledCompactRev", compacted)
		w.set(bucketMeta, "finishedCompactRev", compacted)
	}
	conf := struct {
		Voters    []uint64 `json:"voters"`
		Learners  []uint64 `json:"learners,omitempty"`
		AutoLeave bool     `json:"auto_leave"`
	}{}
	for i := range w.img.Members {
		if m := &w.img.Members[i]; m.Learner {
			conf.Learners = append(conf.Learners, uint64(m.ID))
		} else {
			conf.Voters = append(conf.Voters, uint64(m.ID))
		}
	}
	w.setJSON(bucketMeta, "confState", conf)
}

// member is etcd's encoding of one.
type member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	Learner    bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

func (w *writer) cluster() {
	w.set(bucketCluster, "clusterVersion", []byte(minor(w.version)))
	w.setJSON(bucketCluster, "downgrade", map[string]any{"target-version": w.img.Downgrade, "enabled": w.img.Downgrade != ""})
	for i := range w.img.Members {
		m := &w.img.Members[i]
		w.setJSON(bucketMembers, memberKey(m.ID), member{uint64(m.ID), m.PeerAddrs, m.Learner, m.Name, m.ClientAddrs})
	}
	for _, id := range w.img.Removed {
		w.set(bucketRemoved, memberKey(id), []byte("removed"))
	}
	for _, a := range w.img.Alarms { // etcdserverpb.AlarmMember
		w.set(bucketAlarm, string(appendInt(appendInt(nil, 1, int64(a.Member)), 2, int64(a.Type))), nil)
	}
}

func memberKey(id kv.MemberID) string { return strconv.FormatUint(uint64(id), 16) }

func (w *writer) setJSON(bucket, key string, v any) {
	value, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.set(bucket, key, value)
}

func (w *writer) set(bucket, key string, value []byte) {
	w.put(w.bucket(bucket), []byte(key), value)
}
