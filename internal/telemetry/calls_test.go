package telemetry

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/concord-kv/concord/kv"
)

// Calls are added up by method, those that failed apart, and what has not ended
// is under way.
func TestCallsAddUp(t *testing.T) {
	m := New(Source{Status: func() kv.Status { return kv.Status{} }})
	get, put, other := m.Call("KV", "Range", unary), m.Call("KV", "Put", unary), m.Call("Lease", "Put", unary)
	get.End(get.Begin(), codes.OK)
	put.End(put.Begin(), codes.OK)
	put.End(put.Begin(), codes.Unavailable)
	other.End(other.Begin(), codes.Internal)
	begun := put.Begin()
	if n := m.Under(); n != 1 {
		t.Errorf("%d calls are under way, want 1", n)
	}
	put.End(begun, codes.Canceled)
	if n := m.Under(); n != 0 {
		t.Errorf("%d calls are under way, want none", n)
	}
	for _, c := range []struct {
		methods       []string
		ended, failed uint64
	}{{[]string{"Range"}, 1, 0}, {[]string{"Put"}, 3, 2}, {[]string{"Put", "Range"}, 4, 2}, {nil, 0, 0}} {
		if f := m.Calls("KV", c.methods...); f.Took.Count() != c.ended || f.Failed != c.failed {
			t.Errorf("calls of %v: %d, %d failed; want %d, %d", c.methods, f.Took.Count(), f.Failed, c.ended, c.failed)
		}
	}
}
