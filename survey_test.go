package concord

import (
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/discovery"
	"github.com/concord-kv/concord/kv"
)

func TestSurroundings(t *testing.T) {
	n1 := discovery.Announcement{Cluster: "c", ClusterID: 5, ID: 1, Name: "n1", PeerAddrs: []string{"h:1"}, ClientAddrs: []string{"h:2"}, Version: "1.0.0"}
	n2 := discovery.Announcement{Cluster: "c", ClusterID: 6, ID: 2, Name: "n2"}
	got := surroundings(&discovery.Findings{
		Known:     []discovery.Sighting{{Announcement: n1, Source: "seeds", From: "h:1"}},
		Strangers: []discovery.Stranger{{Cluster: "other", Reason: discovery.OtherCluster, Addr: "a:9", Source: "multicast4"}},
		Conflicts: []discovery.Conflict{{Kind: discovery.TwoClusters, A: n1, B: n2}},
		Problems: []discovery.Problem{
			{Source: "gossip", Err: errors.New("no port")},
			{Source: "seeds", Target: "h:3", Err: fmt.Errorf("dial: %w", x509.UnknownAuthorityError{})},
		},
	})
	want := Surroundings{
		Neighbours: []Neighbour{
			{Cluster: "c", Member: 1, Name: "n1", ClusterID: 5, PeerAddrs: []string{"h:1"}, ClientAddrs: []string{"h:2"}, Version: "1.0.0", From: "h:1", Source: "seeds"},
			{Cluster: "other", Stranger: string(discovery.OtherCluster), From: "a:9", Source: "multicast4"},
		},
		Problems: []string{
			"two clusters of one name and secret: n1 (5) and n2 (6)", "gossip: no port",
			"seeds h:3: what answers there has another secret, or is no member",
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestSurveyRefuses(t *testing.T) {
	for _, opts := range [][]Option{
		{Secret("0123456789abcdef")},
		{Cluster("c")},
		{Cluster("c"), Secret("short")},
		{Cluster("a b"), Secret("0123456789abcdef")},
	} {
		if _, err := Survey(t.Context(), time.Millisecond, opts...); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%v", err)
		}
	}
}
