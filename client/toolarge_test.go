package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// Whoever refuses a request for its size, the error has the size and the limit:
// the edge, by the limit itself, or gRPC, which does not even read it.
func TestTooLargeSaysTheSizes(t *testing.T) {
	limits := kv.Limits{RequestBytes: 1 << 20, Ops: 2}
	m := kvtest.NewModel(limits)
	addr, _ := serveCluster(t, m, lone{store: m, id: 1}, server.Config{Limits: limits})
	c := open(t, client.Config{Endpoints: []string{addr}})
	put := func(key string, n int) kv.Op {
		return kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: make([]byte, n)}
	}
	for name, x := range map[string]struct {
		ops  []kv.Op
		is   error
		says []string
	}{
		"put":         {[]kv.Op{put("a", 1<<20)}, kv.ErrRequestTooLarge, []string{"request of 10486", "limit is 1048576"}},
		"transaction": {[]kv.Op{put("a", 1<<19), put("b", 1<<19)}, kv.ErrRequestTooLarge, []string{"request of 10486", "limit is 1048576"}},
		"message":     {[]kv.Op{put("a", 3<<20)}, kv.ErrRequestTooLarge, []string{"request of 31457", "at most 1572864"}},
		"operations":  {[]kv.Op{put("a", 1), put("b", 1), put("c", 1)}, kv.ErrTooManyOps, []string{"3 comparisons or operations", "max-txn-ops"}},
	} {
		_, err := c.Txn(t.Context(), kv.Txn{Success: x.ops})
		if !errors.Is(err, x.is) || kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%s: %v (%v), want %v", name, err, kv.CodeOf(err), x.is)
			continue
		}
		for _, want := range x.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; it must say %q", name, err, want)
			}
		}
	}
}
