// Command alarms does to three real processes what operators fear, and sees
// whether they are told: for each fault the right alert of
// deploy/prometheus/alerts.yaml fires in a real Prometheus that scrapes the
// members, /readyz of the right member gives the reason, and 'concord cluster
// status' and 'concord top' show it. When the fault is over, all alerts have to
// end and all members be ready.
//
//	go run ./internal/alarms
//	go run ./internal/alarms -faults kill,memory -keep
//
// It needs root, iproute2, util-linux, e2fsprogs and Debian's prometheus. Each
// member has a network namespace; what is sent between cut-off members goes into
// black holes. The third one's data lies on an ext4 file system of its own on a
// loop device: a slow disk is that device throttled by the blkio controller of
// cgroups (version 1), a stalled one is the file system frozen.
//
// The rules are those that ship, but for two figures, so that a run takes
// minutes: an alert fires after 2 s rather than the time in 'for:', and rates
// are taken over 15 s rather than over 5 or 15 minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// plan is what one run does.
type plan struct {
	faults      []string
	binary, dir string
	rules       string
	keep        bool
}

// inside is set in the environment of the process that has a network of its own.
const inside = "ALARMS_INSIDE"

func main() {
	var p plan
	var faults string
	flag.StringVar(&faults, "faults", strings.Join(faultNames(), ","), "faults to do, in this order")
	flag.StringVar(&p.binary, "binary", "", "the concord program; built when empty")
	flag.StringVar(&p.dir, "dir", "", "where data and logs go; a temporary directory when empty")
	flag.StringVar(&p.rules, "rules", "deploy/prometheus/alerts.yaml", "the alerts")
	flag.BoolVar(&p.keep, "keep", false, "keep data and logs when all is well too")
	flag.Parse()
	p.faults = strings.Split(faults, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := prepare
	if os.Getenv(inside) != "" {
		run = torment
	}
	if err := run(ctx, p); err != nil {
		if !errors.Is(err, errTold) {
			fmt.Fprintln(os.Stderr, "alarms:", err)
		}
		os.Exit(1)
	}
}

// errTold: the process within has said what is wrong.
var errTold = errors.New("told")

// prepare builds the program, and runs this one again in a network of its own.
func prepare(ctx context.Context, p plan) (err error) {
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "concord-alarms-"); err != nil {
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
	again := exec.Command("/proc/self/exe", "-faults", strings.Join(p.faults, ","), "-binary", p.binary, "-dir", p.dir, "-rules", p.rules)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if err := again.Start(); err != nil {
		return fmt.Errorf("make a network, which needs root: %w", err)
	}
	// It hears an interrupt itself, and cleans up.
	if err := again.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "alarms: data and logs are in", p.dir)
		return errTold
	}
	if p.keep {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// torment does the faults, one after the other.
func torment(ctx context.Context, p plan) (err error) {
	c := &cluster{plan: p}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.start(ctx); err != nil {
		return err
	}
	prometheus, err := startPrometheus(c)
	if err != nil {
		return err
	}
	defer end(prometheus)
	if err := c.calm(ctx); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	fmt.Println("three members, a real Prometheus: all ready, no alert")
	start := time.Now()
	for _, name := range p.faults {
		if err := c.do(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Printf("every fault was told of, and its end too: %d faults in %v\n", len(p.faults), time.Since(start).Round(time.Second))
	return nil
}

// do does one fault, sees whether it is told of, undoes it, and sees whether all
// is well again.
func (c *cluster) do(ctx context.Context, name string) error {
	make, ok := faults[name]
	if !ok {
		return fmt.Errorf("no such fault; use %s", strings.Join(faultNames(), ", "))
	}
	f, err := make(c, ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s: %s\n", name, f.what)
	start := time.Now()
	if err := f.hurt(ctx); err != nil {
		return errors.Join(err, f.heal(ctx))
	}
	if err := c.told(ctx, f, start); err != nil {
		return errors.Join(err, f.heal(ctx))
	}
	start = time.Now()
	if err := f.heal(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	if err := c.calm(ctx); err != nil {
		return fmt.Errorf("after it was healed: %w", err)
	}
	fmt.Printf("  healed: all members ready and no alert fires after %v\n", time.Since(start).Round(100*time.Millisecond))
	return nil
}
