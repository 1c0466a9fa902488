package etcdapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash"
	"hash/crc32"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/kv"
)

// castagnoli is the polynomial of etcd's hashes (and of iSCSI, RFC 3720).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// HashKV hashes what can be read at a revision, all of it: keys, values, leases
// and revisions. All members answer alike at one revision, whatever was
// compacted before it. The hash is none that etcd would compute.
func (s *maintenanceServer) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	q := kv.Range{Key: []byte{0}, End: []byte{0}, Revision: kv.Revision(max(r.Revision, 0)), Limit: firstChunk, Level: kv.Eventual}
	h := crc32.New(castagnoli)
	_, _ = h.Write([]byte("keys")) // an empty store has a hash too
	var line []byte
	for {
		res, err := s.store.Range(ctx, q)
		if err != nil {
			return nil, toStatus(err)
		}
		if q.Revision == 0 {
			q.Revision = res.Revision
		}
		line = hashKeys(h, line, res.KVs)
		if !res.More {
			break
		}
		q.Key = append(bytes.Clone(res.KVs[len(res.KVs)-1].Key), 0)
		q.Limit = nextLimit(q.Limit, sizeOf(res.KVs))
	}
	st := s.cluster.Status()
	compacted := int64(st.CompactRevision)
	if compacted == 0 {
		compacted = -1 // etcd's word for never
	}
	return &pb.HashKVResponse{
		Header: s.header(kv.Header{Revision: st.Revision, Time: st.Time}, extensions{}),
		Hash:   h.Sum32(), HashRevision: int64(q.Revision), CompactRevision: compacted,
	}, nil
}

// hashKeys writes kvs to h, each with its lengths, by way of line, which it
// returns for the next time.
func hashKeys(h hash.Hash, line []byte, kvs []kv.KeyValue) []byte {
	for i := range kvs {
		k := &kvs[i]
		line = binary.AppendUvarint(line[:0], uint64(len(k.Key)))
		line = append(line, k.Key...)
		line = binary.AppendUvarint(line, uint64(len(k.Value)))
		line = append(line, k.Value...)
		for _, n := range [...]int64{int64(k.CreateRevision), int64(k.ModRevision), k.Version, int64(k.Lease), int64(k.Expires)} {
			line = binary.AppendVarint(line, n)
		}
		_, _ = h.Write(line) // never fails
	}
	return line
}
