// Command formation has processes without state form a cluster, again and again,
// each in a network namespace of its own, with the same command line and no
// addresses: started at random times, killed, and parted from each other by the
// network while they do. In each round there must be one cluster in the end, and
// never two. Then one of them loses its disk, and at last all are stopped and
// come back at other addresses. It prints how long each took.
//
//	sudo go run ./internal/formation -rounds 20 -seed 1
//
// With -expect 1 nothing is cut, because islands would rightly be clusters of
// their own: the first process founds its cluster and is written to, the others
// are started some seconds later, or at the same moment, and must join it.
//
//	sudo go run ./internal/formation -rounds 20 -processes 3 -expect 1
//
// It needs root, and the ip tool of iproute2.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"time"
)

// plan is what one run does.
type plan struct {
	seed      uint64
	rounds    int
	processes int
	expect    int
	binary    string
	dir       string
	keep      bool
}

func main() {
	var p plan
	flag.Uint64Var(&p.seed, "seed", 1, "seed of delays, cuts and kills")
	flag.IntVar(&p.rounds, "rounds", 20, "how many clusters")
	flag.IntVar(&p.processes, "processes", 5, "processes without state")
	flag.IntVar(&p.expect, "expect", 3, "how many of them found the cluster")
	flag.StringVar(&p.binary, "binary", "", "the concord program; built when empty")
	flag.StringVar(&p.dir, "dir", "", "where data and logs go; a temporary directory when empty")
	flag.BoolVar(&p.keep, "keep", false, "keep data and logs when all is well too")
	flag.Parse()
	if p.rounds < 1 || p.processes < 2 || p.expect < 1 || p.expect > p.processes || p.expect > 1 && 2*p.expect <= p.processes {
		fmt.Fprintln(os.Stderr, "formation: -rounds is 1 or more, -processes 2 or more, and -expect 1 or more than half of them")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "formation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "concord-formation-"); err != nil {
			return err
		}
	}
	if p.binary == "" {
		p.binary = filepath.Join(p.dir, "concord")
		build := exec.CommandContext(ctx, "go", "build", "-o", p.binary, "./cmd/concord")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build concord: %w", err)
		}
	}
	fmt.Printf("seed %d, %d rounds of %d processes that expect %d, data in %s\n", p.seed, p.rounds, p.processes, p.expect, p.dir)
	var formed, healed, moved []time.Duration
	for i := range p.rounds {
		r := &round{plan: p, rng: rand.New(rand.NewPCG(p.seed, uint64(i))), dir: filepath.Join(p.dir, fmt.Sprint(i))}
		took, err := r.run(ctx)
		if err != nil {
			return fmt.Errorf("seed %d, round %d: %w (data and logs in %s)", p.seed, i, err, r.dir)
		}
		fmt.Printf("round %d: one cluster, %v after the last fault (%s); full strength %v after one came back without its disk; a write %v after all came back elsewhere\n",
			i, took.formed, r.faults, took.healed, took.moved)
		formed, healed, moved = append(formed, took.formed), append(healed, took.healed), append(moved, took.moved)
		if !p.keep {
			if err := os.RemoveAll(r.dir); err != nil {
				return err
			}
		}
	}
	for what, all := range map[string][]time.Duration{"formed": formed, "full strength": healed, "moved": moved} {
		slices.Sort(all)
		fmt.Printf("%s: median %v, worst %v of %d\n", what, all[len(all)/2], all[len(all)-1], len(all))
	}
	return nil
}
