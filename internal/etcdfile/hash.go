package etcdfile

import (
	"hash/crc32"

	"github.com/concord-kv/concord/kv"
)

// Hash is etcd's HashKV at the revision to, which is not zero: a CRC-32C over
// the records of its file, of those below the compacted revision only what holds
// at to. An etcd with the same history gives the same, but for two things that
// it remembers and Concord does not: where in a transaction compacted long ago a
// key stood, and what it hashed while it compacted. Source: etcd,
// server/storage/mvcc/hash.go and kvstore.go.
func Hash(img *kv.Image, to kv.Revision) (uint32, error) {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum([]byte(bucketKey), table)
	some, err := img.Range(&kv.Range{Key: []byte{0}, End: []byte{0}, Revision: to, CountOnly: true})
	if err != nil {
		return 0, err
	}
	var line []byte
	err = img.Versions(to, func(sub int64, ev kv.Event) bool {
		k, deleted := &ev.KV, ev.Type == kv.DeleteEvent
		switch {
		case deleted && k.ModRevision == img.Compacted:
			return true // etcd's versions differ in whether they keep it
		case k.ModRevision <= img.Compacted && some.Count > 0 && !holds(img, k, to):
			return true // where nothing at all holds, etcd hashes these too
		}
		line = appendRevision(line[:0], k.ModRevision, sub, deleted)
		line = appendRecord(line, &ev)
		sum = crc32.Update(sum, table, line)
		return true
	})
	return sum, err
}

// holds reports whether a version is its key's at the revision at.
func holds(img *kv.Image, k *kv.KeyValue, at kv.Revision) bool {
	res, err := img.Range(&kv.Range{Key: k.Key, Revision: at, KeysOnly: true})
	return err == nil && len(res.KVs) == 1 && res.KVs[0].ModRevision == k.ModRevision
}
