package concord

import (
	"fmt"
	"net"
	"slices"
	"testing"
)

// A member that listens on another address than others use (behind a forwarder,
// or on all interfaces) stands in the member list with the one that they use.
func TestMemberListHasTheAddressThatOthersUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const listed = "n1.example:2380"
	n := open(t, t.TempDir(), Name("n1"), Peers(l.Addr().String(), map[string]string{"n1": listed}), PeerListener(l))
	self := n.self()
	if !slices.Equal(self.PeerAddrs, []string{listed}) {
		t.Errorf("the member announces %v", self.PeerAddrs)
	}
	(&testCluster{t: t}).waitFor(func() error {
		if !n.announced(self) {
			return fmt.Errorf("the member announces %+v, its list has %+v", self, n.machine.Members())
		}
		return nil
	})
}
