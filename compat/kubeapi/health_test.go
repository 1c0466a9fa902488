package kubeapi

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// figure is a line of /metrics.
type figure struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	figureLine = regexp.MustCompile(`^([a-z_]+)\{(.*)\} (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

// figures are what a server counts, where it has labels.
func figures(a api) (list []figure) {
	a.t.Helper()
	status, text, err := a.page(a.t.Context(), "/metrics")
	if err != nil || status != http.StatusOK {
		a.t.Fatal(status, err)
	}
	for line := range strings.Lines(text) {
		m := figureLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		f := figure{name: m[1], labels: map[string]string{}}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			f.labels[pair[1]] = pair[2]
		}
		if f.value, err = strconv.ParseFloat(m[3], 64); err != nil {
			a.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, f)
	}
	return list
}

// testFigures: nothing that a server counts about its store has gone wrong.
func testFigures(t *testing.T, servers []*server) {
	for _, s := range servers {
		calls := map[string]float64{}
		for _, f := range figures(api{s, t}) {
			switch f.name {
			case "grpc_client_handled_total":
				method, code := f.labels["grpc_method"], f.labels["grpc_code"]
				calls[method] += f.value
				// Watches end by being cancelled.
				if code != "OK" && !(code == "Canceled" && (method == "Watch" || method == "RangeStream")) {
					t.Errorf("server %s: %v calls of %s ended with %s", s.name, f.value, method, code)
				}
			case "apiserver_storage_decode_errors_total", "apiserver_watch_cache_initialization_errors_total":
				t.Errorf("server %s: %s %v: %v", s.name, f.name, f.labels, f.value)
			case "apiserver_watch_cache_consistent_read_total":
				if f.labels["success"] != "true" || f.labels["fallback"] != "false" {
					t.Errorf("server %s: %v reads from the cache failed: %v", s.name, f.value, f.labels)
				}
			case "apiserver_storage_consistency_checks_total":
				if f.labels["status"] != "success" {
					t.Errorf("server %s: %v checks of the cache: %v", s.name, f.value, f.labels)
				}
			}
		}
		if s.streams() != (calls["RangeStream"] > 0) {
			t.Errorf("server %s: %v calls of RangeStream", s.name, calls["RangeStream"])
		}
		t.Logf("server %s asked the store: %v", s.name, calls)
	}
}

// Words of a log.
var (
	aboutStore = regexp.MustCompile(`etcd|rpc error|watch chan error|mvcc|grpc|transport:|storage error`)
	// What tests ask for.
	askedFor = regexp.MustCompile(`etcdserver: (request is too large|mvcc: required revision has been compacted)`)
	// What may be said while members are away.
	away = regexp.MustCompile(`connection (refused|reset by peer|error)|broken pipe|EOF|` +
		`code = (Unavailable|DeadlineExceeded|Canceled)|context (deadline exceeded|canceled)|etcdserver: (leader changed|no leader|request timed out)`)
)

// A line of klog, or of the store's client.
var (
	klogLine   = regexp.MustCompile(`^[WEF](\d{4} \d\d:\d\d:\d\d\.\d{6}) `)
	clientLine = regexp.MustCompile(`^\{"level":"(?:warn|error|fatal)","ts":"([^"]+)"`)
)

// window is a time in which members of the store were away.
type window struct{ from, to time.Time }

// testLogs: no server has anything to say against its store, but that members are
// away while they are.
func testLogs(t *testing.T, servers []*server, windows []window) {
	for _, s := range servers {
		file, err := os.Open(s.log())
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		excused, lines := 0, bufio.NewScanner(file)
		for lines.Buffer(nil, 1<<20); lines.Scan(); {
			when, err := complaint(lines.Text())
			switch {
			case err != nil:
				t.Errorf("server %s: %v: %s", s.name, err, lines.Text())
			case when.IsZero():
			case during(windows, when) && away.MatchString(lines.Text()):
				excused++
			default:
				t.Errorf("server %s: %s", s.name, lines.Text())
			}
		}
		if err := lines.Err(); err != nil {
			t.Error(err)
		}
		t.Logf("server %s: %d complaints of the store while members were away", s.name, excused)
	}
}

// complaint is when a line was logged that says something against the store.
func complaint(line string) (when time.Time, err error) {
	if !aboutStore.MatchString(line) || askedFor.MatchString(line) {
		return when, nil
	}
	if m := klogLine.FindStringSubmatch(line); m != nil {
		return time.Parse("2006 0102 15:04:05.000000", fmt.Sprint(time.Now().UTC().Year(), " ", m[1]))
	}
	if m := clientLine.FindStringSubmatch(line); m != nil {
		return time.Parse("2006-01-02T15:04:05.000000Z0700", m[1])
	}
	return when, nil
}

func during(windows []window, when time.Time) bool {
	for _, w := range windows {
		if !when.Before(w.from) && !when.After(w.to) {
			return true
		}
	}
	return false
}
