package etcdfile

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/concord-kv/concord/kv"
)

// The names of the buckets.
const (
	bucketKey     = "key"
	bucketMeta    = "meta"
	bucketLease   = "lease"
	bucketAlarm   = "alarm"
	bucketCluster = "cluster"
	bucketMembers = "members"
	bucketRemoved = "members_removed"
	bucketAuth    = "auth"
	bucketUsers   = "authUsers"
	bucketRoles   = "authRoles"
)

// A revision as a key of the bucket: main and sub, big endian, with an
// underscore between, and a t behind when the record is a tombstone.
const (
	revisionBytes = 17
	tombstoneMark = 't'
)

// The fields of mvccpb.KeyValue and leasepb.Lease.
const (
	fieldKey = iota + 1
	fieldCreate
	fieldMod
	fieldVersion
	fieldValue
	fieldLease

	fieldLeaseID   = 1
	fieldLeaseTTL  = 2
	fieldLeaseLeft = 3
)

// ttlLease marks the ids of leases that stand for the TTLs of keys: the first
// eleven bits are rarely those of an id that etcd made (member and time) or that
// Concord made (random).
const ttlLease = 0x7cd << 52

// TTLLease is the lease that a key which expires at that cluster time, and has
// no lease, is attached to in a file: there is one for each second.
func TTLLease(expires kv.Time) kv.LeaseID { return ttlLease | kv.LeaseID(seconds(int64(expires))) }

// expires is the end of a second that a lease of TTLLease stands for.
func expires(id kv.LeaseID) kv.Time { return kv.Time(id&^ttlLease) * 1000 }

// seconds rounds milliseconds up.
func seconds(ms int64) int64 { return (ms + 999) / 1000 }

// ttlSeconds rounds up, to at least a second.
func ttlSeconds(d time.Duration) int64 { return max(1, seconds(d.Milliseconds())) }

// appendRevision appends the key of a record.
func appendRevision(dst []byte, main kv.Revision, sub int64, tombstone bool) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(main))
	dst = binary.BigEndian.AppendUint64(append(dst, '_'), uint64(sub))
	if tombstone {
		dst = append(dst, tombstoneMark)
	}
	return dst
}

// appendRecord appends the record of a change, as etcd's protobuf encodes it.
func appendRecord(dst []byte, ev *kv.Event) []byte {
	k := &ev.KV
	dst = appendBytes(dst, fieldKey, k.Key)
	if ev.Type == kv.DeleteEvent {
		return dst // of a tombstone etcd has nothing but the key
	}
	dst = appendInt(dst, fieldCreate, int64(k.CreateRevision))
	dst = appendInt(dst, fieldMod, int64(k.ModRevision))
	dst = appendInt(dst, fieldVersion, k.Version)
	if len(k.Value) > 0 {
		dst = appendBytes(dst, fieldValue, k.Value)
	}
	return appendInt(dst, fieldLease, int64(leaseOf(k)))
}

// leaseOf is the lease of a key in a file.
func leaseOf(k *kv.KeyValue) kv.LeaseID {
	if k.Lease == 0 && k.Expires != 0 {
		return TTLLease(k.Expires)
	}
	return k.Lease
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}

// appendInt leaves out zero, as proto3 does.
func appendInt(dst []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), uint64(n))
}
