package commonapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// maintenances are calls that etcd's tests try without a user, with a wrong one,
// with root and with a user.
var maintenances = []struct {
	name string
	// open says that users may call it.
	open bool
	call func(ctx context.Context, w *world, c *clientv3.Client) error
}{
	{"Defragment", false, func(ctx context.Context, w *world, c *clientv3.Client) error {
		_, err := c.Defragment(ctx, c.Endpoints()[0])
		return err
	}},
	{"Downgrade", false, func(ctx context.Context, w *world, c *clientv3.Client) error {
		_, err := c.Downgrade(ctx, clientv3.DowngradeValidate, "3.6.0")
		return err
	}},
	{"HashKV", false, func(ctx context.Context, w *world, c *clientv3.Client) error {
		_, err := c.HashKV(ctx, c.Endpoints()[0], 0)
		return err
	}},
	{"MoveLeader", false, moveLeader},
	{"Snapshot", false, func(ctx context.Context, w *world, c *clientv3.Client) error {
		r, err := c.Snapshot(ctx)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil && n < 4096 {
			err = fmt.Errorf("a snapshot of %d bytes", n)
		}
		return errors.Join(err, r.Close())
	}},
	{"Status", true, func(ctx context.Context, w *world, c *clientv3.Client) error {
		_, err := eachStatus(ctx, c)
		return err
	}},
}

// moveLeader asks the leader to hand over to the next member, or to itself where
// there is no other.
func moveLeader(ctx context.Context, w *world, c *clientv3.Client) error {
	all, err := eachStatus(ctx, w.c)
	if err != nil {
		return err
	}
	leader := slices.IndexFunc(all, func(s *pb.StatusResponse) bool { return s.Leader == s.Header.MemberId })
	if leader < 0 {
		return errors.New("nobody leads")
	}
	to := all[(leader+1)%len(all)]
	c.SetEndpoints(w.Endpoints()[leader])
	_, err = c.MoveLeader(ctx, to.Header.MemberId)
	return err
}

func ofMaintenance() (all []behaviour) {
	for _, m := range maintenances {
		b := behaviour{name: "right to " + m.name, tokens: true}
		for _, who := range []string{"No", "Invalid", "Root", "User"} {
			b.etcd = append(b.etcd, fmt.Sprintf("maintenance_auth_test.go/Test%sWith%sAuth", m.name, who))
		}
		b.run = func(t *testing.T, ctx context.Context, w *world) {
			root, user := w.guard(t, ctx)
			w = &world{Cluster: w.Cluster, c: root} // who leads only users are told
			_, err := w.TryClient(t, func(c *clientv3.Config) { c.Username, c.Password = "invalid", "invalid" })
			refused(t, "login of nobody", err, failed)
			w.nobody(t, m.name, m.call(ctx, w, w.Client(t, nil)))
			if err := m.call(ctx, w, user); m.open {
				must(t, err)
			} else {
				refused(t, m.name+" of a user", err, denied)
			}
			must(t, m.call(ctx, w, root))
		}
		all = append(all, b)
	}
	return all
}
