package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A store's name is that of its program and what it is started with, as in
// concord-tls or etcd-auth.
const (
	withTLS       = "tls"
	withUser      = "auth"
	withToken     = "token"
	withTelemetry = "observed"
)

// kind is the program of a store.
func kind(store string) string {
	store, _, _ = strings.Cut(store, "+") // a twin, see twin
	store, _, _ = strings.Cut(store, "-")
	return store
}

// has tells whether a store is started with that.
func has(store, what string) bool {
	store, _, _ = strings.Cut(store, "+")
	return slices.Contains(strings.Split(store, "-")[1:], what)
}

// login is how clients say who they are; nobody where it is empty.
type login struct{ user, password, token string }

// protect switches authentication on, and lets the clients be a user, or bear an
// access token, that may read and write all keys that are measured, by a role
// among others.
func (c *cluster) protect(ctx context.Context, token bool) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints, TLS: c.tls, DialTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, err = client.Put(ctx, "ready", ""); err != nil && ctx.Err() == nil; _, err = client.Put(ctx, "ready", "") {
	}
	const user, password = "bench", "a password of the benchmark"
	steps := []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", password); return err },
		func() error { _, err := client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, user, password); return err },
	}
	for i, prefix := range []string{"", "a/", "b/", "zz/"} { // the first has every key
		role := fmt.Sprint("role", i)
		end := clientv3.GetPrefixRangeEnd(prefix)
		if prefix == "" {
			prefix, end = "\x00", "\x00"
		}
		steps = append(steps,
			func() error { _, err := client.RoleAdd(ctx, role); return err },
			func() error {
				_, err := client.RoleGrantPermission(ctx, role, prefix, end, clientv3.PermissionType(clientv3.PermReadWrite))
				return err
			},
			func() error { _, err := client.UserGrantRole(ctx, user, role); return err })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if c.login = (login{user: user, password: password}); token {
		out, err := exec.CommandContext(ctx, c.program, "token", "create", "--name", user, "--role", "role0", "--role", "role1", "--role", "role2", "--role", "role3",
			"--endpoints", strings.Join(c.endpoints, ",")).Output()
		if err != nil {
			return fmt.Errorf("make an access token: %w", err)
		}
		c.login = login{token: strings.TrimSpace(string(out))}
	}
	_, err = client.AuthEnable(ctx)
	return err
}

// readEvery is how often the metrics of each member are read: three times as
// often as most have Prometheus do it.
const readEvery = 5 * time.Second

// observe has the members trace one call in a hundred, to a receiver here, and
// all their metrics read for as long as they run.
func (c *cluster) observe() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// The receiver takes whatever comes and answers with an empty message, which
	// says that all was taken.
	receiver := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
		return stream.SendMsg(new(emptypb.Empty))
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = receiver.Serve(l) })
	for i := range c.args {
		c.args[i] = append(c.args[i], "--trace-endpoint", "http://"+l.Addr().String(), "--trace-sample", "0.01")
		group.Go(func() { readMetrics(ctx, c.endpoints[i]) })
	}
	c.telemetry = func() {
		cancel()
		receiver.Stop()
		group.Wait()
	}
	return nil
}

func readMetrics(ctx context.Context, endpoint string) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
		if err != nil {
			return
		}
		if resp, err := http.DefaultClient.Do(req); err == nil { // it may not be up yet
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
}
