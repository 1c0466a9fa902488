// Command etcdctl runs etcd's own etcdctl and its Go client, clientv3 with its
// concurrency package, against a server and checks what they say. It has a
// module of its own, so that users of Concord never download etcd's programs.
//
// The keys under "compat/" of the server are deleted, and its history is
// compacted.
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
	"time"
)

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "the `address` of the server to check")
	limit := flag.Duration("timeout", 2*time.Minute, "how long all checks together may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := run(ctx, *endpoint); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// patience is how long one check may take.
const patience = 20 * time.Second

// check is one thing that must work.
type check struct {
	name string
	run  func(context.Context) error
}

// run runs every check, also after one has failed.
func run(ctx context.Context, endpoint string) error {
	dir, err := os.MkdirTemp("", "compat-etcdctl-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctl := filepath.Join(dir, "etcdctl")
	build := exec.CommandContext(ctx, "go", "build", "-o", ctl, "go.etcd.io/etcd/etcdctl/v3")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build etcdctl: %w", err)
	}
	checks := ctlChecks(&etcdctl{program: ctl, endpoint: endpoint})
	more, closeClient, err := clientChecks(endpoint)
	if err != nil {
		return err
	}
	defer closeClient()
	passed, failed := 0, 0
	for _, c := range append(checks, more...) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		err := c.run(ctx)
		cancel()
		if err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", c.name, err)
			continue
		}
		passed++
		fmt.Printf("ok   %s\n", c.name)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errors.New("not every check has passed")
	}
	return nil
}
