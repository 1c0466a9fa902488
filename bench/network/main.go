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
	"math"
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
	programs       map[string]string // by kind of store
	stores, ops    []string
	clients, conns []int
	members        int
	rounds         int
	value, keys    int
	duration       time.Duration
	tls            bool
	dir            string
	// What there is many of, on how many streams of gRPC.
	watchers, leases, streams int
	ttl                       time.Duration
}

func main() {
	var s settings
	var stores, ops, clients, conns, concord, etcd, baseline string
	flag.StringVar(&concord, "concord", "concord", "the concord program")
	flag.StringVar(&etcd, "etcd", "", "the etcd program; built from its module when empty")
	flag.StringVar(&baseline, "baseline", "", "another concord program, the store baseline")
	flag.StringVar(&stores, "stores", "concord,etcd", "which stores, in turn: concord, etcd, baseline, each also with -tls, -auth (a user with a password), -token (an access token) or -observed (all metrics read every second, one call in a hundred traced), as in concord-tls; the first is compared with the others")
	flag.StringVar(&ops, "ops", "put,get", "of "+strings.Join(opNames(), ", ")+", stream, watchers, leases")
	flag.StringVar(&clients, "clients", "1,100,1000", "concurrent callers, a figure for each")
	flag.StringVar(&conns, "conns", "100", "connections at most, which callers share, a figure for each")
	flag.IntVar(&s.members, "members", 1, "members of each cluster")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured, alternating")
	flag.IntVar(&s.value, "value", 256, "bytes a value")
	flag.IntVar(&s.keys, "keys", 100_000, "keys that are put and read")
	flag.DurationVar(&s.duration, "duration", 5*time.Second, "length of one measurement")
	flag.IntVar(&s.watchers, "watchers", 100_000, "watchers, for -ops watchers")
	flag.IntVar(&s.leases, "leases", 100_000, "leases, for -ops leases")
	flag.IntVar(&s.streams, "streams", 300, "gRPC streams that watchers or leases share")
	flag.DurationVar(&s.ttl, "ttl", time.Minute, "TTL of leases; they are renewed three times in it")
	flag.BoolVar(&s.tls, "tls", false, "speak TLS to the clients of all stores")
	flag.StringVar(&s.dir, "dir", "", "where data goes (default: a temporary directory); it must be a real disk")
	flag.Parse()
	s.programs = map[string]string{"concord": concord, "etcd": etcd, "baseline": baseline}
	s.stores, s.ops = strings.Split(stores, ","), strings.Split(ops, ",")
	s.clients, s.conns = numbers("clients", clients), numbers("conns", conns)
	if err := s.run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// numbers parses a list of positive numbers, the value of the named flag.
func numbers(name, list string) (all []int) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			log.Fatalf("-%s %q: %q is no positive number", name, list, text)
		}
		all = append(all, n)
	}
	return all
}

func (s *settings) run(ctx context.Context) (err error) {
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "concord-network-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.dir)
	}
	if s.programs["etcd"] == "" && slices.ContainsFunc(s.stores, func(name string) bool { return kind(name) == "etcd" }) {
		s.programs["etcd"] = filepath.Join(s.dir, "etcd")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.programs["etcd"], "go.etcd.io/etcd/server/v3")
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
	fmt.Printf("members %d, value %d B, keys %d, %d rounds of %v, alternating\n", s.members, s.value, s.keys, s.rounds, s.duration)
	for _, op := range s.ops {
		switch op {
		case "stream":
			err = s.ranges(ctx, clusters)
		case "watchers":
			err = s.watching(ctx, clusters)
		case "leases":
			err = s.leasing(ctx, clusters)
		default:
			err = s.compare(ctx, clusters, op)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare measures one kind of operation on every cluster, for each number of
// callers and of connections.
func (s *settings) compare(ctx context.Context, clusters []*cluster, op string) error {
	for _, callers := range s.clients {
		last := 0
		for _, conns := range s.conns {
			if conns = min(conns, callers); conns == last {
				continue
			}
			last = conns
			results := make([][]result, len(clusters))
			order := indices(len(clusters))
			for range s.rounds {
				for _, i := range order {
					r, err := s.measure(ctx, clusters[i], op, load{callers, conns})
					if err != nil {
						return fmt.Errorf("%s: %s: %w", clusters[i].name, op, err)
					}
					results[i] = append(results[i], r)
				}
				slices.Reverse(order) // so that none is always first
			}
			report(clusters, results, fmt.Sprintf("%-10s %5d clients %4d conns", op, callers, conns))
		}
	}
	return nil
}

// report prints the medians of each cluster, and how the first compares with
// the others in the same rounds.
func report(clusters []*cluster, results [][]result, what string) {
	for i, c := range clusters {
		fmt.Printf("%s  %-12s %8.0f ops/s  p50 %-8v p99 %-8v  %6.1f µs server CPU/op\n", what, c.name,
			median(results[i], func(r result) float64 { return r.rate }),
			time.Duration(median(results[i], func(r result) float64 { return float64(r.p50) })).Round(10*time.Microsecond),
			time.Duration(median(results[i], func(r result) float64 { return float64(r.p99) })).Round(10*time.Microsecond),
			median(results[i], func(r result) float64 { return r.cpu }))
	}
	for i, c := range clusters[1:] {
		var rates, cpu []float64
		for round, other := range results[i+1] {
			rates = append(rates, results[0][round].rate/other.rate)
			cpu = append(cpu, results[0][round].cpu/other.cpu)
		}
		fmt.Printf("%s  %s to %s: ops/s %s, CPU/op %s\n", what, clusters[0].name, c.name, spread(rates), spread(cpu))
	}
}

// spread tells the median of ratios, the least and the greatest, and of ten or
// more where their mean is with a probability of 95 %.
func spread(ratios []float64) string {
	slices.Sort(ratios)
	n := len(ratios)
	interval := ""
	if n >= 10 {
		low, high := meanInterval(ratios)
		interval = fmt.Sprintf(", mean %.3f to %.3f", low, high)
	}
	return fmt.Sprintf("%.2f (rounds %.2f to %.2f%s)", ratios[n/2], ratios[0], ratios[n-1], interval)
}

// meanInterval is the interval of confidence of 95 % for the mean, with Student's
// factor for ten to thirty values taken as 2.1, which is not too little from 18 on.
func meanInterval(values []float64) (low, high float64) {
	n := float64(len(values))
	sum, squares := 0.0, 0.0
	for _, v := range values {
		sum += v
	}
	for _, v := range values {
		squares += (v - sum/n) * (v - sum/n)
	}
	half := 2.1 * math.Sqrt(squares/(n-1)/n)
	return sum/n - half, sum/n + half
}

func median(all []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range all {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func indices(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}
