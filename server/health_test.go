package server_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// patient is a member that has two things to say of itself.
type patient struct {
	lone
	gone, full atomic.Bool
}

func (p *patient) Conditions() []kv.Condition {
	lost, full := kv.Condition{Name: "leader", Next: "start the others"}, kv.Condition{Name: "disk_space", Next: "free some", Minor: true}
	if p.gone.Load() {
		lost.Reason = "no leader for 4s"
	}
	if p.full.Load() {
		full.Reason = "the disk is full"
	}
	return []kv.Condition{lost, full}
}

func newPatient() *patient {
	p := new(patient)
	p.leader.Store(1)
	return p
}

const wellOfEtcd = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]running ok\n"

// TestReasons reads the pages of a member whose conditions change.
func TestReasons(t *testing.T) {
	p := newPatient()
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), p, server.Config{})
	base := "http://" + addrs[0].String()
	for _, c := range []struct {
		gone, full bool
		path       string
		code       int
		body       string
	}{
		{false, false, "/readyz?verbose", 200, wellOfEtcd + "[+]leader ok\n[+]disk_space ok\nok\n"},
		{false, true, "/readyz", 200, "ok\n"},
		{false, true, "/readyz?verbose", 200, wellOfEtcd + "[+]leader ok\n[!]disk_space ok, but: the disk is full; next: free some\nok\n"},
		{true, false, "/readyz", 503, wellOfEtcd + "[-]leader failed: no leader for 4s; next: start the others\n[+]disk_space ok\n\n"},
		{true, false, "/readyz/leader", 503, "[-]leader failed: no leader for 4s; next: start the others\n\n"},
		{true, true, "/readyz?exclude=leader", 200, "ok\n"},
		{true, false, "/readyz/disk_space", 200, "ok\n"},
		{true, true, "/livez?verbose", 200, "[+]serializable_read ok\nok\n"},
	} {
		p.gone.Store(c.gone)
		p.full.Store(c.full)
		if code, body := fetch(t, new(http.Client), base+c.path); code != c.code || body != c.body {
			t.Errorf("%+v: %d %q", c, code, body)
		}
	}
}

// alarming is a member that knows of an alarm.
type alarming struct {
	lone
	alarm kv.Alarm
}

func (a *alarming) Alarms() []kv.Alarm { return []kv.Alarm{a.alarm} }

// TestCorruption reads what members say while an alarm stands: one that was set
// aside is not ready, the others are.
func TestCorruption(t *testing.T) {
	const rest = "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]running ok\n"
	for _, c := range []struct {
		alarm  kv.Alarm
		code   int
		body   string
		health int
	}{
		{kv.Alarm{Member: 1, Type: kv.AlarmDivergent}, 503, "[-]data_corruption failed: the state of this member differs from that of a majority, and it does not serve; next: stop it, and start it with 'concord serve --rejoin'\n" + rest + "\n", 503},
		{kv.Alarm{Member: 2, Type: kv.AlarmDivergent}, 200, wellOfEtcd + "ok\n", 200},
		{kv.Alarm{Type: kv.AlarmCorrupt}, 503, "[-]data_corruption failed: alarm activated: CORRUPT\n" + rest + "\n", 503},
		{kv.Alarm{Member: 1, Type: kv.AlarmNoSpace}, 200, wellOfEtcd + "ok\n", 503},
	} {
		a := &alarming{alarm: c.alarm}
		a.leader.Store(1)
		addrs, stop := start(t, kvtest.NewModel(kv.Limits{}), a, server.Config{})
		base := "http://" + addrs[0].String()
		if code, body := fetch(t, new(http.Client), base+"/readyz?verbose"); code != c.code || body != c.body {
			t.Errorf("%v: %d %q", c.alarm, code, body)
		}
		if code, body := fetch(t, new(http.Client), base+"/health"); code != c.health {
			t.Errorf("%v: health %d %q", c.alarm, code, body)
		}
		stop()
	}
}

// TestHealthFollows has gRPC's health service say what /readyz says, to those
// that ask and to those that watch, until the server ends.
func TestHealthFollows(t *testing.T) {
	p := newPatient()
	addrs, stop := start(t, kvtest.NewModel(kv.Limits{}), p, server.Config{})
	h := healthpb.NewHealthClient(dial(t, addrs[0].String(), insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	expect := func(service string, want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err != nil || got.Status != want {
			t.Errorf("%q: %v, %v", service, got, err)
		}
	}
	watch, err := h.Watch(ctx, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"})
	if err != nil {
		t.Fatal(err)
	}
	await := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			got, err := watch.Recv()
			if err != nil {
				t.Fatalf("waiting for %v: %v", want, err)
			}
			if got.Status == want {
				return
			}
		}
	}
	yes, no := healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	await(yes)
	p.gone.Store(true)
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": no, "etcdserverpb.KV": no, "v3lockpb.Lock": no, "grpc.health.v1.Health": yes,
	} {
		expect(service, want)
	}
	await(no)
	if _, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("of a service that is none: %v", err)
	}
	p.gone.Store(false)
	await(yes) // nobody asked: the server looks by itself
	list, err := h.List(ctx, &healthpb.HealthListRequest{})
	if err != nil || len(list.Statuses) < 10 {
		t.Errorf("list: %v, %v", list, err)
	}
	go stop()
	await(no)
}
