package server

import (
	"strings"
	"testing"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// led is a cluster with a leader.
type led struct{ kv.Cluster }

func (led) Status() kv.Status { return kv.Status{Leader: 1} }

// TestNotReadyAtTheEnd tells visitors that are still served that the member
// goes.
func TestNotReadyAtTheEnd(t *testing.T) {
	r := newReadiness(kvtest.NewModel(kv.Limits{}), led{})
	if list, ready := runChecks(t.Context(), r.ready); !ready {
		t.Error(list)
	}
	r.stopping.Store(true)
	if list, ready := runChecks(t.Context(), r.ready); ready || !strings.Contains(list, "[-]running failed: this member is shutting down\n") {
		t.Error(list)
	}
}
