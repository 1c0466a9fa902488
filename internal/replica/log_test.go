package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// One line at info level for each leader, with names and ids for people.
func TestLogOfLeaders(t *testing.T) {
	var out bytes.Buffer
	r := &Replica{cfg: Config{Logger: slog.New(slog.NewTextHandler(&out, nil))}}
	states := []State{
		{Term: 1},
		{Term: 1, Role: PreCandidate},
		{Term: 2, Role: Candidate},
		{Term: 2, Role: Leader, Leader: 0xab},
		{Term: 2},
		{Term: 3, Leader: 0xcd},
		{Term: 4, Leader: 0xcd},
	}
	for i := 1; i < len(states); i++ {
		r.tellRole(&states[i-1], &states[i])
	}
	for _, want := range []string{
		`msg="leader elected" leader=ab term=2 role=leader`,
		`msg="leader elected" leader=cd term=3 role=follower`,
		`msg="leader elected" leader=cd term=4 role=follower`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line has %s in:\n%s", want, out.String())
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines for three leaders:\n%s", lines, out.String())
	}
	if got := Role(9).String(); got != "Role(9)" {
		t.Errorf("unknown role is %q", got)
	}
}
