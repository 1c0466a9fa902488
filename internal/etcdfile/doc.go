// Package etcdfile writes the state of a store as the database file of an etcd
// member, and reads such files: what etcdctl snapshot save fetches and etcdutl
// snapshot restore takes.
//
// Sources of the layout: etcd 3.7, server/storage/schema (buckets and their
// keys), server/storage/mvcc/revision.go and kvstore.go (revisions and how they
// are loaded), server/lease/leasepb, server/etcdserver/api/membership; the file
// itself is go.etcd.io/bbolt's.
//
// What etcd has no room for is mapped: a key with a TTL of its own is attached
// to a lease that ends with it (see [TTLLease]); the same record, hashed, is
// what HashKV answers.
package etcdfile
