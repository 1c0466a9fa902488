package concord

import (
	"context"
	"encoding/json"
	"runtime/metrics"
	"testing"
)

// FuzzPeerRequest reads requests of members, and answers those that only ask.
func FuzzPeerRequest(f *testing.F) {
	for _, seed := range []string{
		`{"meet":true}`, `{"figures":true}`, `{"judgement":true}`, `{"hashes":[1,2]}`, `{"memory":{}}`, `{}`, `null`,
		`{"join":{"id":"1","name":"n"}}`, `{"change":[{}],"caller":{}}`, `{"move":1}`,
	} {
		f.Add([]byte(seed))
	}
	n, err := Open(context.Background(), f.TempDir(), Name("n1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := n.Close(); err != nil {
			f.Error(err)
		}
	})
	const base, growth = 4 << 20, 512 // what any may cost, and a byte: most of two is an empty change
	f.Fuzz(func(t *testing.T, data []byte) {
		sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(sample)
		before := sample[0].Value.Uint64()
		var req peerRequest
		err := json.Unmarshal(data, &req)
		if err != nil || req.Join == nil && req.Claim == nil && len(req.Change) == 0 && req.Move == nil {
			answer, failed := n.answer(data)
			var reply peerReply
			if (failed == nil) != (err == nil) || failed == nil && json.Unmarshal(answer, &reply) != nil {
				t.Errorf("%q: %v, %s, %v", data, err, answer, failed)
			}
		}
		metrics.Read(sample)
		if cost := sample[0].Value.Uint64() - before; cost > uint64(base+growth*len(data)) {
			t.Errorf("%d bytes cost %d", len(data), cost)
		}
	})
}
