package concord

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

var largeMiB = flag.Int("large", 48, "size of the large value of TestLargeValue, in MiB")

// A large value costs nobody leadership, and small writes pass it. That a busy
// machine does not show it every time says nothing.
func TestLargeValue(t *testing.T) {
	size := *largeMiB << 20
	c := newTestCluster(t, 3, Limits(kv.Limits{RequestBytes: int64(size) + 1024}))
	c.openAll()
	rng := rand.NewChaCha8([32]byte{1})
	var err error
	for range 5 {
		value := make([]byte, size)
		if _, err := rng.Read(value); err != nil {
			t.Fatal(err)
		}
		if err = putLarge(t, c, value); err == nil {
			return
		}
		t.Log(err)
	}
	t.Error(err)
}

// putLarge puts value beside small writes. Its error is what the large one cost
// others.
func putLarge(t *testing.T, c *testCluster, value []byte) error {
	ctx := t.Context()
	term := c.nodes[0].Status().Term
	small, stop := context.WithCancel(ctx)
	latencies := make(chan []time.Duration)
	go func() {
		var all []time.Duration
		for small.Err() == nil {
			start := time.Now()
			if _, err := c.nodes[1].Put(ctx, "small", "x"); err != nil {
				t.Error(err)
			}
			all = append(all, time.Since(start))
		}
		latencies <- all
	}()
	start := time.Now()
	_, err := kv.Put(ctx, c.nodes[2], "large", value)
	took := time.Since(start)
	stop()
	all := <-latencies
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	t.Logf("%d bytes in %v; %d small writes meanwhile, median %v, worst %v", len(value), took, len(all), all[len(all)/2], all[len(all)-1])
	for i, n := range c.nodes {
		k, err := n.Get(ctx, "large", kv.Strong)
		if err != nil || !bytes.Equal(k.Value, value) {
			t.Fatalf("member %d: value of %d bytes, %v", i, len(k.Value), err)
		}
	}
	if now := c.nodes[0].Status().Term; now != term {
		return fmt.Errorf("leadership moved: term %d, then %d", term, now)
	}
	if len(all) < 3 {
		return fmt.Errorf("only %d small writes passed", len(all))
	}
	return nil
}
