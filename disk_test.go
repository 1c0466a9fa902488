package concord

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// With a full disk puts are refused by name, reads and deletes go on, and puts
// are taken again when there is space.
func TestFullDisk(t *testing.T) {
	fs := new(vfs.Mem)
	fs.Capacity = 40 << 20
	n := open(t, "/data", withFS(fs))
	ctx := t.Context()
	value := make([]byte, 512<<10)
	acked := 0
	var err error
	for err == nil {
		if acked++; acked > 200 {
			t.Fatal("the disk never became full")
		}
		_, err = kv.Put(ctx, n, fmt.Sprint(acked), value)
	}
	if !errors.Is(err, kv.ErrNoSpace) {
		t.Fatalf("put %d on a full disk: %v", acked, err)
	}
	for i := 1; i < acked; i++ {
		if _, err := n.Get(ctx, fmt.Sprint(i), kv.Strong); err != nil {
			t.Fatalf("acknowledged key %d: %v", i, err)
		}
	}
	if _, err := n.Delete(ctx, "1"); err != nil {
		t.Fatalf("delete on a full disk: %v", err)
	}
	fs.Capacity = 400 << 20
	c := testCluster{t: t}
	c.waitFor(func() error {
		_, err := n.Put(ctx, "again", "x")
		return err
	})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(t, "/data", withFS(fs))
	for i := 2; i < acked; i++ {
		if _, err := n.Get(ctx, fmt.Sprint(i), kv.Strong); err != nil {
			t.Fatalf("after reopening, key %d: %v", i, err)
		}
	}
}

// sickDisk is a disk whose syncs take as long as it is told.
type sickDisk struct {
	vfs.Mem
	takes atomic.Int64  // nanoseconds
	hangs atomic.Bool   // until healed is closed
	heals chan struct{} // closed at the end
}

func (d *sickDisk) sync(op vfs.Op) error {
	switch {
	case op.Kind != vfs.OpSync:
	case d.hangs.Load():
		<-d.heals
	case d.takes.Load() > 0:
		<-time.After(time.Duration(d.takes.Load()))
	}
	return nil
}

// Leadership leaves a member whose disk hangs, or is many times slower than the
// others', while writes go on.
func TestLeadershipLeavesASickDisk(t *testing.T) {
	for what, hurt := range map[string]func(*sickDisk){
		"slow":  func(d *sickDisk) { d.takes.Store(int64(150 * time.Millisecond)) },
		"hangs": func(d *sickDisk) { d.hangs.Store(true) },
	} {
		t.Run(what, func(t *testing.T) {
			c := newTestCluster(t, 3, quick())
			heals := make(chan struct{})
			disks := make([]*sickDisk, 3)
			var group sync.WaitGroup
			for i := range c.nodes {
				disks[i] = &sickDisk{heals: heals}
				disks[i].Hook = disks[i].sync
				group.Go(func() { c.start(i, withFS(disks[i])) })
			}
			group.Wait()
			for i := range c.nodes {
				c.ready(i)
			}
			defer close(heals)
			ctx, cancel := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			defer writers.Wait()
			defer cancel()
			for i, n := range c.nodes {
				writers.Go(func() {
					for k := 0; ctx.Err() == nil; k++ {
						_, _ = n.Put(ctx, fmt.Sprint("k", i), fmt.Sprint(k))
					}
				})
			}
			lead := -1
			leader := func() error {
				for i, n := range c.nodes {
					if n.Status().Role == kv.LeaderRole && n.replica.Leadership().Term != 0 && i != lead {
						lead = i
						return nil
					}
				}
				return fmt.Errorf("no leader but member %d", lead)
			}
			c.waitFor(leader)
			hurt(disks[lead])
			c.waitFor(leader)
			other := c.nodes[lead]
			if _, err := other.Put(t.Context(), "after", "1"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
