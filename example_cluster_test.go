package concord_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/concord-kv/concord"
)

// How a cluster is, from any member, and who leads it from now on.
func ExampleNode_Overview() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "concord")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := concord.Open(ctx, dir, concord.Name("n1"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	for view := range db.Follow(ctx) { // once now, and after every change
		if view.Leader != 0 {
			break
		}
	}
	o, err := db.Overview(ctx)
	if err != nil {
		log.Fatal(err)
	}
	health := o.Health()
	fmt.Println(health.Summary)
	for _, m := range o.Members {
		fmt.Println(m.Label(), m.Report.Role, "behind by", m.Lag)
	}
	// Output:
	// 1 of 1 voters, survives 0 failures
	// n1 leader behind by 0
}
