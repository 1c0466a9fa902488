package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	flagSeeds = flag.Int("sim.seeds", 0, "how many seeds to run; 0 runs until the time is over")
	flagStart = flag.Uint64("sim.start", 1, "first seed")
	flagTime  = flag.Duration("sim.time", 20*time.Second, "wall time after which no further seed is started")
	flagSeed  = flag.Uint64("sim.seed", 0, "run this seed only")
	flagNodes = flag.Int("sim.nodes", 0, "founding members; 0 lets the seed choose")
	flagTrace = flag.Bool("sim.trace", false, "with -sim.seed: tell all that happens on stderr")
)

// TestSeeds runs seeds until the time is over. Each is a cluster for a simulated
// minute.
func TestSeeds(t *testing.T) {
	if *flagSeed != 0 {
		o := Options{Seed: *flagSeed, Nodes: *flagNodes}
		if *flagTrace {
			o.Trace = os.Stderr
		}
		report(t, Run(o))
		return
	}
	began := time.Now()
	virtual := time.Duration(0)
	seeds := 0
	for ; (*flagSeeds == 0 || seeds < *flagSeeds) && time.Since(began) < *flagTime; seeds++ {
		res := Run(Options{Seed: *flagStart + uint64(seeds), Nodes: *flagNodes})
		virtual += res.Virtual
		report(t, res)
	}
	t.Logf("%d seeds, %v simulated in %v: %.0f × real time", seeds, virtual, time.Since(began).Round(time.Millisecond),
		virtual.Seconds()/time.Since(began).Seconds())
}

func report(t *testing.T, res Result) {
	t.Helper()
	if res.Err != nil {
		t.Errorf("%v\n%s\nreplay: %s", res, res.Summary, replay(res.Seed))
	} else if testing.Verbose() {
		t.Log(res, res.Tally)
	}
}

func replay(seed uint64) string {
	s := fmt.Sprintf("go test ./internal/sim -run TestSeeds -sim.seed=%d -sim.trace", seed)
	if *flagNodes != 0 {
		s += fmt.Sprintf(" -sim.nodes=%d", *flagNodes)
	}
	return s
}

// TestDeterminism runs seeds twice: everything must happen again.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		o := Options{Seed: seed, Chaos: 10 * time.Second, Calm: 8 * time.Second}
		a, b := Run(o), Run(o)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: the second run differs\n%v\n%v", seed, a, b)
		}
		if c := Run(Options{Seed: seed + 1000, Chaos: o.Chaos, Calm: o.Calm}); c.Hash == a.Hash {
			t.Errorf("seeds %d and %d have the same hash", seed, seed+1000)
		}
	}
}
