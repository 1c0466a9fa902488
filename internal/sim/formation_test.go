package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	flagForms = flag.Uint64("form.seeds", 100, "how many seeds of each kind of formation to run")
	flagForm  = flag.String("form.kind", "", "run this kind of formation only")
	flagAt    = flag.Uint64("form.seed", 0, "with -form.kind: run this seed only, and tell all that happens on stderr")
)

// TestFormation runs seeds of each kind of formation.
func TestFormation(t *testing.T) {
	if *flagAt != 0 {
		reportForm(t, Form(FormationOptions{Kind: *flagForm, Seed: *flagAt, Trace: os.Stderr}))
		return
	}
	for _, kind := range FormationKinds() {
		if *flagForm != "" && *flagForm != kind {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			began := time.Now()
			var sum FormationResult
			for seed := *flagStart; seed < *flagStart+*flagForms; seed++ {
				res := Form(FormationOptions{Kind: kind, Seed: seed})
				reportForm(t, res)
				sum.Clusters += res.Clusters
				sum.Founders += res.Founders
				sum.Joined += res.Joined
				sum.Rivals += res.Rivals
				sum.Blocked += res.Blocked
				sum.Events += res.Events
				sum.Took += res.Took
			}
			t.Logf("%d seeds in %v: %d clusters, %d founders, %d joined, %d rivals, %d blocked, %d events; mean time after the faults %v",
				*flagForms, time.Since(began).Round(time.Millisecond), sum.Clusters, sum.Founders, sum.Joined, sum.Rivals, sum.Blocked, sum.Events,
				sum.Took/time.Duration(*flagForms))
		})
	}
}

func reportForm(t *testing.T, res FormationResult) {
	t.Helper()
	if res.Err != nil {
		t.Fatalf("%v\n%s\nreplay: %s", res, res.Summary,
			fmt.Sprintf("go test ./internal/sim -run TestFormation -form.kind=%s -form.seed=%d", res.Kind, res.Seed))
	}
}
