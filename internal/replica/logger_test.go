package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// What raft says for each entry is not logged; what it says of elections is.
func TestRaftLoggerWritesNothingPerEntry(t *testing.T) {
	var out bytes.Buffer
	l := raftLogger{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	l.Infof("entry at index %d missing from unstable log; ignoring", 7)
	if out.Len() > 0 {
		t.Errorf("logged: %s", out.String())
	}
	l.Infof("%x became leader at term %d", 7, 8)
	if !strings.Contains(out.String(), "7 became leader at term 8") {
		t.Errorf("logged: %q", out.String())
	}
}
