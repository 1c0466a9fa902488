package commonapi

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/processes"
)

func ofServers() []behaviour {
	return []behaviour{
		{name: "status", etcd: []string{"status_test.go/TestStatus", "endpoint_test.go/TestEndpointStatus"}, run: doStatus},
		{name: "health", etcd: []string{"endpoint_test.go/TestEndpointHealth"}, run: doHealth},
		{name: "leader", etcd: []string{"wait_leader_test.go/TestWaitLeader"}, run: doLeader},
		{name: "leader that stops", etcd: []string{"wait_leader_test.go/TestWaitLeader_MemberStop"}, run: doStopLeader, least: 3},
		{name: "alarm", etcd: []string{"alarm_test.go/TestAlarm"}, run: doAlarm},
		{name: "alarms and a restart", etcd: []string{"alarm_test.go/TestAlarmlistOnMemberRestart"}, run: doAlarmRestart},
		{name: "addresses", etcd: []string{"grpc_test.go/TestAuthority"}, run: doAddresses},
	}
}

func doStatus(t *testing.T, ctx context.Context, w *world) {
	ids, leaders := map[uint64]bool{}, map[uint64]bool{}
	for _, s := range get[[]*pb.StatusResponse](t)(eachStatus(ctx, w.c)) {
		ids[s.Header.MemberId], leaders[s.Leader] = true, true
		if !strings.HasPrefix(s.Version, "3.") || s.IsLearner || len(s.Errors) > 0 || s.RaftAppliedIndex == 0 || s.DbSize == 0 {
			t.Errorf("%v", s)
		}
	}
	if len(ids) != w.Members || len(leaders) != 1 {
		t.Errorf("members %v, leaders %v", ids, leaders)
	}
}

// doHealth asks every member for what etcdctl's health command asks.
func doHealth(t *testing.T, ctx context.Context, w *world) {
	for i := range w.Members {
		c := w.one(t, i)
		_, err := c.Get(ctx, "health")
		must(t, err)
		if alarms := get[*clientv3.AlarmResponse](t)(c.AlarmList(ctx)); len(alarms.Alarms) > 0 {
			t.Errorf("alarms of member %d: %v", i, alarms.Alarms)
		}
	}
}

func doLeader(t *testing.T, ctx context.Context, w *world) {
	if leader := w.Leader(ctx); leader < 0 || leader >= w.Members {
		t.Errorf("member %d leads", leader)
	}
}

func doStopLeader(t *testing.T, ctx context.Context, w *world) {
	first := w.Leader(ctx)
	w.Stop(first)
	if second := w.Leader(ctx); second == first {
		t.Errorf("member %d leads on", second)
	}
	w.Start(first)
}

// doAlarm fills a store, makes room again and disarms the alarm.
func doAlarm(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, fmt.Sprintf("--quota-backend-bytes=%d", 13*os.Getpagesize()))
	put(t, ctx, f.c, "first", "x")
	large := strings.Repeat("y", os.Getpagesize())
	f.Until("the store is full", func() error {
		if _, err := f.c.Put(ctx, "again", large); err == nil {
			return fmt.Errorf("there is room")
		} else if !strings.Contains(err.Error(), noSpace) {
			t.Fatal(err)
		}
		return nil
	})
	f.Until("there is an alarm", func() error {
		if r, err := f.c.AlarmList(ctx); err != nil || len(r.Alarms) == 0 || r.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
			return fmt.Errorf("alarms: %v, %w", r, err)
		}
		return nil
	})
	_, err := f.c.Put(ctx, "second", "x")
	refused(t, "a put while there is an alarm", err, noSpace)
	revision := get[*clientv3.GetResponse](t)(f.c.Get(ctx, "x")).Header.Revision
	_, err = f.c.Compact(ctx, revision, clientv3.WithCompactPhysical())
	must(t, err)
	for _, endpoint := range f.Endpoints() {
		_, err := f.c.Defragment(ctx, endpoint)
		must(t, err)
	}
	f.Until("a put when all alarms are disarmed, of each member of etcd its own", func() error {
		for _, a := range get[*clientv3.AlarmResponse](t)(f.c.AlarmList(ctx)).Alarms {
			_, err := f.c.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a))
			must(t, err)
		}
		_, err := f.c.Put(ctx, "third", "x")
		return err
	})
}

// doAlarmRestart asks for alarms so often that a snapshot is taken, and starts a
// member again.
func doAlarmRestart(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, "--snapshot-count=5")
	for range 8 {
		_, err := f.c.AlarmList(ctx)
		must(t, err)
	}
	f.Stop(0)
	f.Start(0)
	if r := get[*clientv3.AlarmResponse](t)(f.one(t, 0).AlarmList(ctx)); len(r.Alarms) > 0 {
		t.Errorf("alarms: %v", r.Alarms)
	}
}

// doAddresses puts by every form of an address, by TCP and by sockets of the
// file system. (That a client names the server as it does is its own affair.)
func doAddresses(t *testing.T, ctx context.Context, w *world) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var forms []string
	for _, endpoint := range w.Endpoints() {
		scheme, addr, _ := strings.Cut(endpoint, "://")
		_, port, err := net.SplitHostPort(addr)
		must(t, err)
		forms = append(forms, addr, scheme+"://"+addr, scheme+"://localhost:"+port)
	}
	kinds := []struct {
		w     *world
		forms []string
	}{{w, forms}}
	// Names in the certificate of a client must be its address, which a socket
	// does not have, for etcd and for Concord.
	if w.Security != processes.TLS {
		sockets := w.withSockets(t)
		kinds = append(kinds, struct {
			w     *world
			forms []string
		}{sockets, sockets.socketForms()})
	}
	for _, c := range kinds {
		for _, form := range c.forms {
			client := c.w.Client(t, func(cfg *clientv3.Config) {
				cfg.Endpoints, cfg.DialTimeout = []string{form}, 10*time.Second
				if cfg.TLS != nil && strings.HasPrefix(form, "unix") {
					cfg.TLS.ServerName = "localhost"
				}
			})
			for range 10 {
				if _, err := client.Put(ctx, "by", form); err != nil {
					t.Fatalf("put by %s: %v", form, err)
				}
			}
			wantValue(t, ctx, client, "by", form)
		}
	}
}

// socketForms are the forms of the addresses of members on sockets.
func (w *world) socketForms() (forms []string) {
	for _, endpoint := range w.Endpoints() {
		scheme, path, _ := strings.Cut(endpoint, "://")
		forms = append(forms, scheme+":"+path, scheme+"://"+path)
	}
	return forms
}

// withSockets is another cluster whose members listen on sockets of the file
// system.
func (w *world) withSockets(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // the path of a socket is short
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	cfg := w.Config
	cfg.Sockets = filepath.Join(dir, "m")
	return &world{programs: w.programs, Cluster: w.programs.Start(t, cfg)}
}
