package concordtest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord"
)

// victim is a test that may fail, and says why.
type victim struct {
	*testing.T
	said []string
}

func (v *victim) Errorf(format string, args ...any) {
	v.said = append(v.said, fmt.Sprintf(format, args...))
}

func (v *victim) Fatalf(format string, args ...any) {
	v.Errorf(format, args...)
	runtime.Goexit()
}

// fails runs what is to end its test, and returns what was said.
func fails(t *testing.T, do func(testing.TB)) string {
	t.Helper()
	v := &victim{T: t}
	ended := make(chan bool)
	go func() {
		whole := false
		defer func() { ended <- whole }()
		do(v)
		whole = true
	}()
	if <-ended {
		t.Error("it went through")
	}
	return strings.Join(v.said, "\n")
}

// TestFailures: what cannot be ends the test, and is said with all that is known.
func TestFailures(t *testing.T) {
	c := Start(t, 3)
	for want, do := range map[string]func(testing.TB, *Cluster){
		"there is no member 3; there are 3": func(_ testing.TB, c *Cluster) { c.Node(3) },
		"no member -1":                      func(_ testing.TB, c *Cluster) { c.Kill(-1) },
		"member 1 is in two groups":         func(_ testing.TB, c *Cluster) { c.Partition([]int{0, 1}, []int{1, 2}) },
		"does not go back":                  func(_ testing.TB, c *Cluster) { c.Advance(-1) },
		"at least one member":               func(t testing.TB, _ *Cluster) { Start(t, 0) },
		"election timeout 1ms":              func(t testing.TB, _ *Cluster) { Start(t, 3, concord.Timing(time.Second, time.Millisecond)) },
	} {
		said := fails(t, func(v testing.TB) {
			other := &Cluster{t: v, net: c.net, members: c.members}
			do(v, other)
		})
		if !strings.Contains(said, want) {
			t.Errorf("%q instead of %q", said, want)
		}
	}
}

// TestPatience: what does not come ends the test after a minute, with how all
// members are.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Start(t, 3, concord.Timing(time.Second, 10*time.Second))
		c.Partition([]int{0}, []int{1})
		c.Kill(2)
		c.Wipe(2)
		for want, do := range map[string]func(*Cluster){
			"waited 1m0s for a leader: no member leads":      func(c *Cluster) { c.Leader() },
			"waited 1m0s for n1 to serve":                    func(c *Cluster) { c.WaitReady() },
			"waited 1m0s for n3 to serve: it does not run":   func(c *Cluster) { c.WaitReady(2) },
			"waited 1m0s for cluster time to advance by 1h":  func(c *Cluster) { c.Advance(time.Hour) },
			"start n3: open member in n3: join the cluster:": func(c *Cluster) { c.Restart(2) },
		} {
			said := fails(t, func(v testing.TB) {
				do(&Cluster{t: v, opts: c.opts, net: c.net, began: c.began, members: c.members})
			})
			if !strings.Contains(said, want) || !strings.Contains(said, "in group 1 of a partition\n") || !strings.Contains(said, "member 2 (n3): does not run") {
				t.Errorf("%q instead of %q", said, want)
			}
		}
	})
}

// TestMemberThatEnded: a member that ended by itself fails the test at its end.
func TestMemberThatEnded(t *testing.T) {
	v := &victim{T: t}
	c := Start(t, 3)
	c.members[1].disk.out.Store(true)
	put(t, c.Node(0), "key", "x")
	<-c.Node(1).Done()
	c.t = v
	c.end()
	if said := strings.Join(v.said, "\n"); !strings.Contains(said, "n2 has ended by itself") {
		t.Errorf("%q was said", said)
	}
}

// TestEmbeddingPage: the tests that docs/EMBEDDING.md shows are those that run
// here, word for word.
func TestEmbeddingPage(t *testing.T) {
	page, err := os.ReadFile("../docs/EMBEDDING.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, block := range strings.Split(string(page), "```go\n")[1:] {
		code, _, _ := strings.Cut(block, "```")
		if !strings.Contains(string(source), code) {
			t.Errorf("this does not run:\n%s", code)
		}
		shown++
	}
	if shown == 0 {
		t.Error("the page shows nothing")
	}
}
