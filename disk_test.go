package concord

import (
	"errors"
	"fmt"
	"testing"

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
