// Command chaos runs a cluster of real processes under load, kills, pauses and
// cuts the power of its members by a seed, and checks what clients saw: no
// acknowledged write is lost, the history is linearizable, all members end with
// one state. It prints how long writes were out after each fault.
//
//	go run ./internal/chaos -faults 100 -kinds leader,member,all -seed 1
//
// Power cuts (-kinds power) need root: each member's data lies on an ext4 file
// system of its own on a loop device, which is shut down without its unwritten
// data.
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
	"strings"
	"time"
)

// plan is what one run does.
type plan struct {
	seed    uint64
	members int
	faults  int
	kinds   []string
	clients int
	rate    int
	round   int
	binary  string
	dir     string
	keep    bool
}

func main() {
	var p plan
	var kinds string
	flag.Uint64Var(&p.seed, "seed", 1, "seed of faults and load")
	flag.IntVar(&p.members, "members", 3, "members of the cluster")
	flag.IntVar(&p.faults, "faults", 20, "how many faults")
	flag.StringVar(&kinds, "kinds", "leader,member,all", "faults to draw from: leader, member, all (kill -9), pause (the leader), power")
	flag.IntVar(&p.clients, "clients", 9, "concurrent clients")
	flag.IntVar(&p.rate, "rate", 60, "operations a second of each client")
	flag.IntVar(&p.round, "round", 10, "faults between two checks of the history")
	flag.StringVar(&p.binary, "binary", "", "the concord program; built when empty")
	flag.StringVar(&p.dir, "dir", "", "where data and logs go; a temporary directory when empty")
	flag.BoolVar(&p.keep, "keep", false, "keep data and logs when all is well too")
	flag.Parse()
	p.kinds = strings.Split(kinds, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "concord-chaos-"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if p.binary == "" {
		p.binary = filepath.Join(p.dir, "concord")
		build := exec.CommandContext(ctx, "go", "build", "-o", p.binary, "./cmd/concord")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build concord: %w", err)
		}
	}
	fmt.Printf("seed %d, %d members, %d faults of %v, %d clients at %d/s, data in %s\n",
		p.seed, p.members, p.faults, p.kinds, p.clients, p.rate, p.dir)
	c, err := startCluster(ctx, p)
	if err != nil {
		return err
	}
	defer c.stop()
	if err := p.torment(ctx, c); err != nil {
		return fmt.Errorf("seed %d: %w (data and logs in %s)", p.seed, err, p.dir)
	}
	c.stop()
	if !p.keep {
		return os.RemoveAll(p.dir)
	}
	return nil
}

// torment does the faults, round by round, and checks each round.
func (p plan) torment(ctx context.Context, c *cluster) error {
	rng := rand.New(rand.NewPCG(p.seed, 7))
	outages := map[string][]time.Duration{}
	checks := make(chan error, p.faults/p.round+1)
	rounds := 0
	for done := 0; done < p.faults; rounds++ {
		l := startLoad(ctx, c, p, rounds)
		for range min(p.round, p.faults-done) {
			kind := p.kinds[rng.IntN(len(p.kinds))]
			out, err := p.fault(ctx, c, l, kind, rng)
			if err != nil {
				l.stop()
				return fmt.Errorf("fault %d (%s): %w", done, kind, err)
			}
			outages[kind] = append(outages[kind], out)
			done++
		}
		if err := l.finish(ctx, c); err != nil {
			return fmt.Errorf("after fault %d: %w", done, err)
		}
		go func() { checks <- l.check() }()
		acked, unknown := l.counts()
		fmt.Printf("%4d faults  %7d acknowledged  %4d unknown  %s\n", done, acked, unknown, summary(outages))
	}
	for range rounds {
		if err := <-checks; err != nil {
			return err
		}
	}
	if err := c.converge(ctx); err != nil {
		return err
	}
	fmt.Printf("all %d rounds linearizable, nothing acknowledged lost, members equal\n", rounds)
	return nil
}

// fault does one fault under load and waits until writes flow and every member
// is back. It returns the longest time without an acknowledged write.
func (p plan) fault(ctx context.Context, c *cluster, l *load, kind string, rng *rand.Rand) (time.Duration, error) {
	// A moment of calm, so that the fault meets a working cluster.
	if err := pause(ctx, time.Duration(200+rng.IntN(600))*time.Millisecond); err != nil {
		return 0, err
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return 0, err
	}
	var victims []*member
	switch kind {
	case "leader", "pause":
		victims = []*member{leader}
	case "member":
		victims = []*member{c.members[rng.IntN(len(c.members))]}
	case "all":
		victims = slices.Clone(c.members)
	case "power":
		victims = slices.Clone(c.members)
		if rng.IntN(2) == 0 {
			victims = victims[:1+rng.IntN(len(victims)-1)]
		}
	default:
		return 0, fmt.Errorf("fault kind %q is unknown; use leader, member, all, pause or power", kind)
	}
	start := time.Now()
	for _, m := range victims {
		if err := m.hurt(kind); err != nil {
			return 0, err
		}
	}
	if kind == "pause" {
		if err := pause(ctx, 3*time.Second); err != nil {
			return 0, err
		}
	} else if kind != "all" && kind != "power" {
		// Some faults meet a cluster that has one member less for a while.
		if err := pause(ctx, time.Duration(rng.IntN(1500))*time.Millisecond); err != nil {
			return 0, err
		}
	}
	for _, m := range victims {
		if err := m.heal(kind); err != nil {
			return 0, err
		}
	}
	if err := l.flows(ctx, time.Now()); err != nil {
		return 0, err
	}
	if err := c.ready(ctx); err != nil {
		return 0, err
	}
	return l.longestGap(start), nil
}

// pause waits, less when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func summary(outages map[string][]time.Duration) string {
	var parts []string
	for kind, all := range outages {
		slices.Sort(all)
		parts = append(parts, fmt.Sprintf("%s: median %v, worst %v of %d", kind,
			all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all)))
	}
	slices.Sort(parts)
	return "outage " + strings.Join(parts, "; ")
}
