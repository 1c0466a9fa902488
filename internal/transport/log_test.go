package transport

import (
	"log/slog"
	"testing"
)

// What belongs to a start is no warning, and what goes on is one warning: the
// other side tries again several times a second.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	tr := New(Config{ID: 1, Cluster: cluster})
	for _, reason := range []Refusal{NoCluster, Self, Superseded} {
		if level := tr.refusalLevel(hello{from: 2}, reason); level != slog.LevelDebug {
			t.Errorf("%v is logged at %v", reason, level)
		}
	}
	for _, reason := range []Refusal{WrongCluster, WrongMember, UnknownVersion, Removed, Busy} {
		if level := tr.refusalLevel(hello{from: 2}, reason); level != slog.LevelWarn {
			t.Errorf("first %v is logged at %v", reason, level)
		}
		if level := tr.refusalLevel(hello{from: 2}, reason); level != slog.LevelDebug {
			t.Errorf("second %v is logged at %v", reason, level)
		}
	}
	for from := range uint64(2 * maxTold) {
		tr.refusalLevel(hello{from: from}, WrongCluster)
	}
	if len(tr.told) > maxTold {
		t.Errorf("%d refusals are remembered, at most %d should be", len(tr.told), maxTold)
	}
}
