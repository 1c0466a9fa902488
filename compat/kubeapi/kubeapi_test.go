package kubeapi

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestKubeAPI runs everything on one store, one after the other. The figures are
// taken before anything goes that somebody reads: a resource, a server, a member,
// an old version.
func TestKubeAPI(t *testing.T) {
	free := strings.Split(os.Getenv("ADDRESSES"), ",")
	if len(free) < 3 || os.Getenv("KUBE_APISERVER") == "" {
		t.Fatal("KUBE_APISERVER or ADDRESSES are missing; make compat-kube-apiserver gives them")
	}
	rare := "--etcd-compaction-interval=1h"
	servers := []*server{
		newServer(t, "1", free[0], rare),
		newServer(t, "2", free[1], rare, "--feature-gates=EtcdRangeStream=false"),
		newServer(t, "3", free[2], rare, "--watch-cache=false"),
	}
	for _, s := range servers {
		s.launch(t)
	}
	status, version, err := servers[0].page(t.Context(), "/version")
	if err != nil || status != http.StatusOK || !strings.Contains(version, `"gitVersion": "v1.37.2"`) {
		t.Fatalf("not Kubernetes 1.37.2: %d %s, %v", status, version, err)
	}
	var windows []window
	for _, step := range []struct {
		name string
		test func(*testing.T, []*server)
	}{
		{"objects", testObjects},
		{"lists", testLists},
		{"watches", testWatches},
		{"load", testLoad},
		{"events", testEvents},
		{"election", testElection},
		{"workloads", testWorkloads},
		{"figures", testFigures},
		{"custom", testCustom},
		{"addresses", testAddresses},
		{"kills", func(t *testing.T, servers []*server) { windows = testKills(t, servers) }},
		{"compaction", testCompaction},
		{"logs", func(t *testing.T, servers []*server) { testLogs(t, servers, windows) }},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			began := time.Now()
			step.test(t, servers)
			t.Logf("%v", time.Since(began).Round(100*time.Millisecond))
		}) {
			break // what follows stands on it
		}
	}
}

// testLoad: writers and followers where nothing happens to the store.
func testLoad(t *testing.T, servers []*server) {
	l := startLoad(t, servers, "load", 6)
	l.more(1200)
	l.check()
}

// testKills kills each member of the store under load, leaves it away for a
// while, and starts it again; then all of them at once. Writes go on, and all
// servers get ready. Events end in time meanwhile.
func testKills(t *testing.T, servers []*server) (windows []window) {
	l := startLoad(t, servers, "kills", 6)
	l.more(100)
	cut := func(during func()) {
		w := window{from: time.Now()}
		during()
		for _, s := range servers {
			until(t, "server "+s.name+" ready again", func() bool { return s.ready(t.Context()) == nil })
		}
		l.more(200)
		w.to = time.Now().Add(grace)
		windows = append(windows, w)
	}
	for i := range members() {
		cut(func() {
			ends := startEvents(t, servers, fmt.Sprint("events-", i))
			control(t, "kill", i)
			if members() > 1 {
				l.more(200)
			}
			control(t, "launch", i)
			control(t, "ready", i)
			ends.gone()
		})
	}
	for range 3 {
		cut(func() {
			for _, what := range []string{"kill", "launch", "ready"} {
				for i := range members() {
					control(t, what, i)
				}
			}
		})
	}
	l.check()
	return windows
}
