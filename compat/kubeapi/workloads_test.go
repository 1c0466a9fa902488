package kubeapi

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// testWorkloads: what servers give away together is given away once.
func testWorkloads(t *testing.T, servers []*server) {
	path := api{servers[0], t}.namespace("workloads")
	services(t, servers, path+"/services")
	pods(t, servers, path+"/pods")
}

// services get addresses and ports of their own, which the servers allocate in
// turn from what the store has.
func services(t *testing.T, servers []*server, path string) {
	t.Helper()
	const each = 15
	var running sync.WaitGroup
	for i, s := range servers {
		running.Go(func() {
			for n := range each {
				body := object{"metadata": object{"name": fmt.Sprintf("s%d-%d", i, n)}, "spec": object{
					"type": "NodePort", "selector": object{"app": "s"}, "ports": []object{{"port": 80}},
				}}
				status, o, err := s.ask(t.Context(), call{method: http.MethodPost, path: path, body: body})
				if err != nil || status != http.StatusCreated {
					t.Errorf("server %s: %d %v, %v", s.name, status, o, err)
				}
			}
		})
	}
	running.Wait()
	given := map[any]string{}
	for _, o := range (api{servers[1], t}).list(path) {
		port := object(o.at("spec", "ports").([]any)[0].(map[string]any))["nodePort"]
		for _, what := range []any{o.text("spec", "clusterIP"), port} {
			if other, is := given[what]; is || what == "" || what == nil {
				t.Errorf("%s has %v, %q too", o.name(), what, other)
			}
			given[what] = o.name()
		}
	}
	if len(given) != 2*each*len(servers) {
		t.Errorf("%d addresses and ports for %d services", len(given), each*len(servers))
	}
}

// pods are bound once, though a scheduler at each server tries to.
func pods(t *testing.T, servers []*server, path string) {
	t.Helper()
	const n = 20
	a := api{servers[0], t}
	for i := range n {
		a.create(path, object{"metadata": object{"name": fmt.Sprint("p", i)}, "spec": object{
			"containers": []object{{"name": "c", "image": "example.test/c:1"}},
		}})
	}
	var mu sync.Mutex
	bound := map[string]string{}
	var running sync.WaitGroup
	for _, s := range servers {
		running.Go(func() {
			for i := range n {
				name := fmt.Sprint("p", i)
				body := object{"metadata": object{"name": name}, "target": object{"kind": "Node", "name": "node-" + s.name}}
				status, o, err := s.ask(t.Context(), call{method: http.MethodPost, path: path + "/" + name + "/binding", body: body})
				if err != nil || status != http.StatusCreated && status != http.StatusConflict {
					t.Errorf("server %s: %d %v, %v", s.name, status, o, err)
				}
				if status != http.StatusCreated {
					continue
				}
				mu.Lock()
				if other, is := bound[name]; is {
					t.Errorf("%s is bound to %s and by server %s", name, other, s.name)
				}
				bound[name] = "node-" + s.name
				mu.Unlock()
			}
		})
	}
	running.Wait()
	for _, s := range servers {
		for name, node := range bound {
			if got := (api{s, t}).get(path+"/"+name).text("spec", "nodeName"); got != node {
				t.Errorf("server %s: %s is on %q, not on %s", s.name, name, got, node)
			}
		}
	}
	if len(bound) != n {
		t.Errorf("%d of %d pods are bound", len(bound), n)
	}
	// As a kubelet reports, and as it ends one.
	a.patch(strategicPatch, path+"/p0/status", object{"status": object{"phase": "Running"}})
	if on := len(a.list(path + "?fieldSelector=status.phase%3DRunning")); on != 1 {
		t.Errorf("%d pods are running", on)
	}
	a.remove(path + "/p0?gracePeriodSeconds=0")
	a.fails(http.StatusNotFound, "NotFound", call{method: http.MethodGet, path: path + "/p0"})
}
