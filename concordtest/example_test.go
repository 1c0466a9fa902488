package concordtest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/kv"
)

// tryLock is what is tested: the first who puts the key has the lock, for as long
// as its lease lives.
func tryLock(ctx context.Context, db *concord.Node, who string, lease kv.LeaseID) (locked bool, err error) {
	res, err := db.Txn(ctx, kv.Txn{
		Compare: []kv.Compare{{Key: []byte("lock"), Target: kv.CompareCreate, Relation: kv.Equal}},
		Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("lock"), Value: []byte(who), Lease: lease}},
	})
	return res.Succeeded, err
}

// A lock outlives the leader, and is free when its holder has been away for
// longer than its lease.
func TestLock(t *testing.T) { synctest.Test(t, testLock) }

func testLock(t *testing.T) {
	c := concordtest.Start(t, 3)
	ann, bob := c.Node(0), c.Node(1)
	try := func(db *concord.Node, who string, want bool) {
		t.Helper()
		lease, err := db.Grant(t.Context(), kv.Grant{TTL: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if locked, err := tryLock(t.Context(), db, who, lease.ID); err != nil || locked != want {
			t.Fatalf("%s has the lock: %v, not %v: %v", who, locked, want, err)
		}
	}
	try(ann, "ann", true)
	try(bob, "bob", false)

	// The leader is gone, and the lock is not. Ask a member that is there.
	leader := c.Leader()
	c.Kill(leader)
	try(c.Node((leader+1)%3), "bob", false)
	c.Restart(leader)
	c.WaitReady()

	// Ten seconds pass at once.
	c.Advance(10 * time.Second)
	try(c.Node(1), "bob", true)
}

// A member that is cut off refuses rather than to say what may be old.
func TestCutOff(t *testing.T) { synctest.Test(t, testCutOff) }

func testCutOff(t *testing.T) {
	c := concordtest.Start(t, 3)
	old := c.Leader()
	c.Partition([]int{old})
	if _, err := c.Node(c.Leader()).Put(t.Context(), "key", "new"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if k, err := c.Node(old).Get(ctx, "key", kv.Strong); kv.CodeOf(err) != kv.Unavailable {
		t.Fatalf("it reads %q: %v", k.Value, err)
	}
	c.Heal()
	if k, err := c.Node(old).Get(t.Context(), "key", kv.Strong); err != nil || string(k.Value) != "new" {
		t.Fatalf("it reads %q: %v", k.Value, err)
	}
}

func ExampleStart() {
	var t *testing.T // that of your test

	c := concordtest.Start(t, 3)
	leader := c.Leader()
	c.Partition([]int{leader}) // from the other two
	_, err := c.Node(c.Leader()).Put(t.Context(), "key", "value")
	c.Heal()
	c.Kill(leader) // what it did not sync is lost
	c.Restart(leader)
	c.WaitReady()
	c.Advance(time.Hour) // leases and keys end
	_ = err
}
