package replica

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPropose(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, n, Options{})
				defer c.stop()
				c.leader()
				var wg sync.WaitGroup
				for id, node := range c.nodes {
					for i := range 50 {
						wg.Go(func() { c.propose(node, fmt.Sprintf("%d-%d", id, i)) })
					}
				}
				wg.Wait()
				for _, node := range c.nodes {
					if err := node.r.ReadIndex(context.Background()); err != nil {
						t.Fatal(err)
					}
					m := node.m.(*machine)
					for id := range c.nodes {
						for i := range 50 {
							if got := m.seen(fmt.Sprintf("%d-%d", id, i)); got != 1 {
								t.Errorf("member %d applied %d-%d %d times", node.id, id, i, got)
							}
						}
					}
				}
			})
		})
	}
}

func TestSoleMemberIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		began := time.Now()
		c.propose(c.nodes[1], "x")
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("the first proposal took %v", took)
		}
	})
}
