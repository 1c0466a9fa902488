package concord_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

// A whole durable store in a program: no ports, one directory.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "concord-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db, err := concord.Open(ctx, filepath.Join(dir, "data"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if _, err := db.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	k, err := db.Get(ctx, "greeting", kv.Strong)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s at revision %d\n", k.Value, k.ModRevision)
	// Output: hello at revision 2
}

// Only the first of several processes gets the key; it is given up when its
// holder no longer renews the lease.
func ExampleNode_Txn() {
	ctx := context.Background()
	db, done := openExample(ctx)
	defer done()

	lease, err := db.Grant(ctx, kv.Grant{TTL: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	for _, who := range []string{"ann", "bob"} {
		res, err := db.Txn(ctx, kv.Txn{
			Compare: []kv.Compare{{Key: []byte("leader"), Target: kv.CompareCreate, Relation: kv.Equal}},
			Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("leader"), Value: []byte(who), Lease: lease.ID}},
			Failure: []kv.Op{{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("leader")}}},
		})
		if err != nil {
			log.Fatal(err)
		}
		if res.Succeeded {
			fmt.Println(who, "leads")
		} else {
			fmt.Printf("%s finds that %s leads\n", who, res.Ops[0].Range.KVs[0].Value)
		}
	}
	// Output:
	// ann leads
	// bob finds that ann leads
}

// A watch yields every change once, in order, from a revision on.
func ExampleNode_Watch() {
	ctx := context.Background()
	db, done := openExample(ctx)
	defer done()

	first, err := db.Put(ctx, "svc/a", "10.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Delete(ctx, "svc/a"); err != nil {
		log.Fatal(err)
	}
	prefix := []byte("svc/")
	changes := 0
	for batch, err := range db.Watch(ctx, kv.WatchRequest{Key: prefix, End: kv.Prefix(prefix), Start: first.Revision}) {
		if err != nil {
			log.Fatal(err)
		}
		for _, ev := range batch.Events { // an empty batch only says how far the watch is
			fmt.Printf("%d: %v %s %s\n", batch.Revision, ev.Type, ev.KV.Key, ev.KV.Value)
			changes++
		}
		if changes == 2 {
			break
		}
	}
	// Output:
	// 2: PUT svc/a 10.0.0.1:80
	// 3: DELETE svc/a
}

// openExample opens a store that done throws away.
func openExample(ctx context.Context) (db *concord.Node, done func()) {
	dir, err := os.MkdirTemp("", "concord-")
	if err != nil {
		log.Fatal(err)
	}
	db, err = concord.Open(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := db.Close(); err != nil {
			log.Print(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Print(err)
		}
	}
}
