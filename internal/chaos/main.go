// Command chaos runs a cluster of real processes under load, kills, pauses and
// cuts off its members and cuts their power, by a seed, and checks what clients
// saw: no acknowledged write is lost, the history is linearizable, all members
// end with one state. It prints how long writes were out after each fault, and
// for a leader that is silent (pause, cut) how many election timeouts that is.
//
//	go run ./internal/chaos -faults 100 -kinds leader,member,all -seed 1
//	go run ./internal/chaos -faults 100 -kinds pause,cut -round 25 -seed 1
//	go run ./internal/chaos -faults 50 -kinds roll -clients 20 -rate 50
//
// A cut (-kinds cut, cut-in, cut-out) parts the leader from the other members,
// not from clients: it goes on as a leader until it notices. Connections stay
// open and are silent.
//
// Power cuts (-kinds power) need root: each member's data lies on an ext4 file
// system of its own on a loop device, which is shut down without its unwritten
// data.
package main

import (
	"context"
	"errors"
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
	seed     uint64
	members  int
	faults   int
	kinds    []string
	clients  int
	rate     int
	round    int
	election time.Duration
	binary   string
	dir      string
	keep     bool
	stop     bool
}

func main() {
	var p plan
	var kinds string
	flag.Uint64Var(&p.seed, "seed", 1, "seed of faults and load")
	flag.IntVar(&p.members, "members", 3, "members of the cluster")
	flag.IntVar(&p.faults, "faults", 20, "how many faults")
	flag.StringVar(&kinds, "kinds", "leader,member,all", "faults to draw from: leader, member, all (kill -9), pause (stop the leader), cut (the leader off from the others; also cut-in, cut-out: one way), power, and what is done on purpose: move (the leader), roll (restart all, one after the other)")
	flag.IntVar(&p.clients, "clients", 9, "concurrent clients")
	flag.IntVar(&p.rate, "rate", 60, "operations a second of each client")
	flag.IntVar(&p.round, "round", 10, "faults between two checks of the history")
	flag.DurationVar(&p.election, "election-timeout", time.Second, "of the members; a heartbeat is a tenth of it")
	flag.StringVar(&p.binary, "binary", "", "the concord program; built when empty")
	flag.StringVar(&p.dir, "dir", "", "where data and logs go; a temporary directory when empty")
	flag.BoolVar(&p.keep, "keep", false, "keep data and logs when all is well too")
	flag.BoolVar(&p.stop, "stop", true, "stop at the first violation; else go on to the end and report all")
	flag.Parse()
	p.kinds = strings.Split(kinds, ",")
	if err := p.check(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// check tells what is wrong with the flags.
func (p plan) check() error {
	for _, kind := range p.kinds {
		if !slices.Contains(faultKinds, kind) {
			return fmt.Errorf("fault kind %q is unknown; use %s", kind, strings.Join(faultKinds, ", "))
		}
	}
	switch {
	case p.members < 1 || p.faults < 1 || p.clients < 1 || p.rate < 1 || p.round < 1:
		return errors.New("-members, -faults, -clients, -rate and -round must be 1 or more")
	case p.members < 2 && slices.ContainsFunc(p.kinds, isPlanned):
		return errors.New("-kinds move and roll need 2 or more -members")
	case p.election < 50*time.Millisecond:
		return fmt.Errorf("-election-timeout %v is too short; use 50ms or more", p.election)
	}
	return nil
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

// torment does the faults, round by round, and checks each round while the next
// one runs.
func (p plan) torment(ctx context.Context, c *cluster) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &verdicts{dir: p.dir}
	if p.stop {
		v.violated = cancel
	}
	err = p.rounds(ctx, c, v)
	if errors.Is(context.Cause(ctx), errViolation) {
		err = nil // that it was stopped is no news beside the violation
	}
	if err = errors.Join(v.wait(), err); err != nil {
		return err
	}
	if err := c.converge(ctx); err != nil {
		return err
	}
	fmt.Println("every round linearizable, nothing acknowledged lost, members equal")
	return nil
}

func (p plan) rounds(ctx context.Context, c *cluster, v *verdicts) error {
	rng := rand.New(rand.NewPCG(p.seed, 7))
	out := outages{}
	for done, round := 0, 0; done < p.faults; round++ {
		l := startLoad(ctx, c, p, round)
		for range min(p.round, p.faults-done) {
			kind := p.kinds[rng.IntN(len(p.kinds))]
			gap, err := p.fault(ctx, c, l, kind, rng)
			if err != nil {
				l.stop()
				return fmt.Errorf("fault %d (%s): %w", done, kind, err)
			}
			if isSilence(kind) && gap > longSilence*p.election/2 {
				v.printf("     fault %d (%s), over at %s, was long: %v; the members' logs say more\n",
					done, kind, time.Now().UTC().Format(time.TimeOnly), gap.Round(time.Millisecond))
			}
			out[kind] = append(out[kind], gap)
			done++
		}
		if err := l.finish(ctx, c); err != nil {
			return fmt.Errorf("after fault %d: %w", done, err)
		}
		acked, unknown := l.counts()
		v.printf("%4d faults  %7d acknowledged  %4d unknown  %s\n", done, acked, unknown, out.summary(p.election))
		v.check(l)
	}
	return nil
}
