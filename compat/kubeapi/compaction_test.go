package kubeapi

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
)

// testCompaction starts a server that compacts every second, in place of one
// without a watch cache. What is gone is refused as such everywhere, and what
// follows the present does not notice.
func testCompaction(t *testing.T, servers []*server) {
	a, last := api{servers[0], t}, servers[len(servers)-1]
	path := a.namespace("compaction") + "/configmaps"
	var old string
	for i := range 20 {
		old = a.create(path, configMap(fmt.Sprintf("c%02d", i), nil)).version()
	}
	page := api{last, t}.get(path + "?limit=5")
	var followers []*follower
	for _, s := range servers[:len(servers)-1] {
		followers = append(followers, (&follower{server: s, path: path}).follow(t, old))
	}
	last.stop()
	last.launch(t, "--etcd-compaction-interval=1s", "--feature-gates=EtcdRangeStream=false")
	changes := 0
	change := func() {
		a.patch(mergePatch, path+"/c00", object{"data": object{"n": fmt.Sprint(changes)}})
		changes++
	}
	exact := path + "?resourceVersionMatch=Exact&resourceVersion=" + old
	for _, s := range servers {
		until(t, "version "+old+" gone at server "+s.name, func() bool {
			change()
			status, o, err := s.ask(t.Context(), call{method: http.MethodGet, path: exact})
			return err == nil && status == http.StatusGone && o.text("reason") == "Expired"
		})
	}
	err := last.watch(bounded(t), path+"?watch=1&resourceVersion="+old, func(event) bool { return true })
	if !gone(err) {
		t.Errorf("a watch from a version that is gone: %v", err)
	}
	next := "&continue=" + url.QueryEscape(page.text("metadata", "continue"))
	o := api{last, t}.fails(http.StatusGone, "Expired", call{method: http.MethodGet, path: path + "?limit=5" + next})
	rest := api{last, t}.list(path + "?limit=5&continue=" + url.QueryEscape(o.text("metadata", "continue")))
	if len(rest) != 15 || rest[0].name() != "c05" {
		t.Errorf("%d objects after the page that is gone", len(rest))
	}
	for range 20 {
		change()
	}
	for _, f := range followers {
		f.until(t, "all changes", func(events []event) bool { return len(events) == changes })
	}
	t.Logf("%d changes during compactions", changes)
}
