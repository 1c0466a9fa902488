// Command network measures servers over the network with etcd's own Go client:
// Concord beside etcd, in one run, rounds alternating, each server a process (or
// three). It tells operations a second, latencies, and the CPU time that the
// servers took for an operation, which drifts least.
//
//	go run ./network -concord ../bin/concord -members 1 -clients 1,100,1000 -ops put,get
//
// etcd is built from its Go module unless -etcd names a program.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are what the flags say.
type settings struct {
	concord, etcd  string
	stores, ops    []string
	clients        []int
	members, conns int
	rounds         int
	value, keys    int
	duration       time.Duration
	tls            bool
	dir            string
}

func main() {
	var s settings
	var stores, ops, clients string
	flag.StringVar(&s.concord, "concord", "concord", "the concord program")
	flag.StringVar(&s.etcd, "etcd", "", "the etcd program; built from its module when empty")
	flag.StringVar(&stores, "stores", "concord,etcd", "which stores, in turn")
	flag.StringVar(&ops, "ops", "put,get", "of "+strings.Join(opNames(), ", ")+", stream")
	flag.StringVar(&clients, "clients", "1,100,1000", "concurrent callers, a figure for each")
	flag.IntVar(&s.members, "members", 1, "members of each cluster")
	flag.IntVar(&s.conns, "conns", 100, "connections at most; callers share them")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured, alternating")
	flag.IntVar(&s.value, "value", 256, "bytes a value")
	flag.IntVar(&s.keys, "keys", 100_000, "keys that are put and read")
	flag.DurationVar(&s.duration, "duration", 5*time.Second, "length of one measurement")
	flag.BoolVar(&s.tls, "tls", false, "speak TLS to clients")
	flag.StringVar(&s.dir, "dir", "", "where data goes (default: a temporary directory); it must be a real disk")
	flag.Parse()
	s.stores, s.ops = strings.Split(stores, ","), strings.Split(ops, ",")
	for c := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 {
			log.Fatalf("-clients %q: %q is no number of callers", clients, c)
		}
		s.clients = append(s.clients, n)
	}
	if err := s.run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func (s *settings) run(ctx context.Context) (err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "concord-network-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.dir)
	}
	if s.etcd == "" && slices.Contains(s.stores, "etcd") {
		s.etcd = filepath.Join(s.dir, "etcd")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.etcd, "go.etcd.io/etcd/server/v3")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build etcd: %w", err)
		}
	}
	var clusters []*cluster
	defer func() {
		for _, c := range clusters {
			c.stop()
		}
	}()
	for _, name := range s.stores {
		c, err := s.start(ctx, name)
		if c != nil {
			clusters = append(clusters, c)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Printf("members %d, value %d B, keys %d, tls %v, %d rounds of %v, alternating\n", s.members, s.value, s.keys, s.tls, s.rounds, s.duration)
	for _, op := range s.ops {
		if op == "stream" {
			err = s.streams(ctx, clusters)
		} else {
			err = s.compare(ctx, clusters, op)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare measures one kind of operation on every cluster, for each number of
// callers.
func (s *settings) compare(ctx context.Context, clusters []*cluster, op string) error {
	for _, callers := range s.clients {
		results := make([][]result, len(clusters))
		for range s.rounds {
			for i, c := range clusters {
				r, err := s.measure(ctx, c, op, callers)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", c.name, op, err)
				}
				results[i] = append(results[i], r)
			}
			slices.Reverse(clusters) // so that none is always first
			slices.Reverse(results)
		}
		report(clusters, results, op, callers)
	}
	return nil
}

func report(clusters []*cluster, results [][]result, op string, callers int) {
	for i, c := range clusters {
		fmt.Printf("%-10s %5d clients  %-8s %8.0f ops/s  p50 %-8v p99 %-8v  %6.1f µs server CPU/op\n", op, callers, c.name,
			median(results[i], func(r result) float64 { return r.rate }),
			time.Duration(median(results[i], func(r result) float64 { return float64(r.p50) })).Round(10*time.Microsecond),
			time.Duration(median(results[i], func(r result) float64 { return float64(r.p99) })).Round(10*time.Microsecond),
			median(results[i], func(r result) float64 { return r.cpu }))
	}
	a, b := slices.IndexFunc(clusters, is("concord")), slices.IndexFunc(clusters, is("etcd"))
	if a < 0 || b < 0 {
		return
	}
	var ratios []float64
	for i := range results[a] {
		ratios = append(ratios, results[a][i].rate/results[b][i].rate)
	}
	slices.Sort(ratios)
	fmt.Printf("%-10s %5d clients  ratio    %8.2f (of the rounds %.2f to %.2f)\n", op, callers, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}

func is(name string) func(*cluster) bool {
	return func(c *cluster) bool { return c.name == name }
}

func median(all []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range all {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
