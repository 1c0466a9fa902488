package server_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// measured is a cluster with figures.
type measured struct {
	lone
	figures kv.Figures
}

func (m *measured) Figures() kv.Figures { return m.figures }

// scrape reads /metrics into samples.
func scrape(t *testing.T, base string) map[string]float64 {
	t.Helper()
	code, text := fetch(t, new(http.Client), base+"/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if value == "" {
			name, value, _ = strings.Cut(name, " ")
		} else {
			name += "}"
		}
		v, err := strconv.ParseFloat(value, 64)
		if _, twice := out[name]; twice || err != nil {
			t.Errorf("%q: %v, twice %v", line, err, twice)
		}
		out[name] = v
	}
	return out
}

func TestMetrics(t *testing.T) {
	writes := kv.Durations{Sum: 20 * time.Second}
	writes.Counts[kv.DurationCell(62500)], writes.Counts[kv.DurationCell(time.Millisecond)], writes.Counts[kv.DurationCells-1] = 1, 2, 1
	cluster := &measured{figures: kv.Figures{
		LeaderChanges: 2, State: kv.StateFigures{Puts: 5, Deletes: 3}, Apply: kv.ApplyFigures{Entries: 6},
		Log: kv.LogFigures{Entries: 7, Writes: writes},
	}}
	cluster.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{Etcd: server.EtcdConfig{Quota: 1 << 31}})
	conn, base := dial(t, addrs[0].String(), insecure.NewCredentials()), "http://"+addrs[0].String()
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{}); err == nil {
		t.Fatal("a put without a key")
	}
	w, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	fetch(t, new(http.Client), base+"/health")
	got := scrape(t, base)
	put, watch := `grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"`, `grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"`
	for name, want := range map[string]float64{
		"grpc_server_started_total{" + put + "}":                             2,
		`grpc_server_handled_total{grpc_code="OK",` + put + "}":              1,
		`grpc_server_handled_total{grpc_code="InvalidArgument",` + put + "}": 1,
		"grpc_server_started_total{" + watch + "}":                           1,
		"grpc_server_msg_received_total{" + watch + "}":                      1,
		"grpc_server_msg_sent_total{" + watch + "}":                          1,
		"etcd_server_has_leader":                                             1,
		"etcd_server_is_leader":                                              0,
		"etcd_server_is_learner":                                             0,
		"etcd_server_leader_changes_seen_total":                              2,
		"etcd_mvcc_put_total":                                                5,
		"etcd_mvcc_delete_total":                                             3,
		"etcd_server_quota_backend_bytes":                                    1 << 31,
		"etcd_server_health_success":                                         1,
		`etcd_server_version{server_version="3.7.3"}`:                        1,
		`etcd_cluster_version{cluster_version="3.7"}`:                        1,
		`etcd_server_id{server_id="1"}`:                                      1,
		`etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"}`:            3,
		`etcd_disk_wal_fsync_duration_seconds_bucket{le="8.192"}`:            3,
		`etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}`:             4,
		`etcd_disk_wal_fsync_duration_seconds_sum`:                           20,
		`concord_log_write_seconds_bucket{le="6.25e-05"}`:                    1,
		"concord_log_entries_total":                                          7,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{"process_resident_memory_bytes", "go_goroutines", "etcd_network_client_grpc_received_bytes_total", "etcd_network_client_grpc_sent_bytes_total", "concord_connections"} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	for name := range got {
		if strings.Contains(name, "MemberList") {
			t.Errorf("%s never happened", name)
		}
	}
}

// TestVars: there is what etcd shows, but no secret of the command line.
func TestVars(t *testing.T) {
	old := os.Args
	t.Cleanup(func() { os.Args = old })
	os.Args = []string{"concord", "serve", "--secret", "s3cr3t", "--name", "n1", "--secret-file", "f", "--secret", "--x-password=s3cr3t", "-discovery-token", "s3cr3t", "--no-password", "last"}
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{})
	code, text := fetch(t, new(http.Client), "http://"+addrs[0].String()+"/debug/vars")
	var vars struct {
		Memstats json.RawMessage
		Cmdline  []string
	}
	if err := json.Unmarshal([]byte(text), &vars); err != nil || code != 200 || vars.Memstats == nil {
		t.Errorf("%d, %v: %.200s", code, err, text)
	}
	want := []string{"concord", "serve", "--secret", "***", "--name", "n1", "--secret-file", "f", "--secret", "--x-password=***", "-discovery-token", "***", "--no-password", "last"}
	if !slices.Equal(vars.Cmdline, want) {
		t.Errorf("the command line is shown as %q", vars.Cmdline)
	}
	if strings.Contains(text, "s3cr3t") {
		t.Error("a secret is shown")
	}
}
