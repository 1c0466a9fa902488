package kubeapi

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
)

// testObjects makes, changes and deletes objects through each server, and reads
// them from the others.
func testObjects(t *testing.T, servers []*server) {
	for i, s := range servers {
		a, other := api{s, t}, api{servers[(i+1)%len(servers)], t}
		namespace := a.namespace("objects-" + s.name)
		life(a, other, namespace+"/configmaps")
		patches(a, other, namespace+"/configmaps")
		applies(a, namespace+"/configmaps")
		secrets(a, other, namespace+"/secrets")
		deployments(a, other, "/apis/apps/v1/namespaces/objects-"+s.name+"/deployments")
		endings(a, other, namespace+"/configmaps")
	}
	generatedNames(t, servers)
}

// life: each answer tells the state, conflicts are refused, and another server
// knows at once.
func life(a, other api, path string) {
	a.t.Helper()
	o := a.create(path, configMap("a", map[string]string{"value": "1"}))
	a.fails(http.StatusConflict, "AlreadyExists", call{method: http.MethodPost, path: path, body: configMap("a", nil)})
	first := o.version()
	o.set("2", "data", "value")
	o = a.update(path+"/a", o)
	if got := other.get(path + "/a"); got.version() != o.version() || got.text("data", "value") != "2" || number(got.version()) <= number(first) {
		a.t.Errorf("server %s: %v", other.name, got)
	}
	o.set(first, "metadata", "resourceVersion")
	a.fails(http.StatusConflict, "Conflict", call{method: http.MethodPut, path: path + "/a", body: o})
	same := other.get(path + "/a")
	if again := a.update(path+"/a", same); again.version() != same.version() {
		a.t.Errorf("an update without a change made version %s of %s", again.version(), same.version())
	}
	a.do(call{method: http.MethodPost, path: path + "?dryRun=All", body: configMap("dry", nil)}, http.StatusCreated)
	other.fails(http.StatusNotFound, "NotFound", call{method: http.MethodGet, path: path + "/dry"})
	wrong := object{"preconditions": object{"resourceVersion": first}}
	a.fails(http.StatusConflict, "Conflict", call{method: http.MethodDelete, path: path + "/a", body: wrong})
	right := object{"preconditions": object{"resourceVersion": same.version(), "uid": same.text("metadata", "uid")}}
	a.do(call{method: http.MethodDelete, path: path + "/a", body: right}, http.StatusOK)
	for _, x := range []api{a, other} {
		x.fails(http.StatusNotFound, "NotFound", call{method: http.MethodGet, path: path + "/a"})
	}
	a.fails(http.StatusNotFound, "NotFound", call{method: http.MethodDelete, path: path + "/a"})
}

func patches(a, other api, path string) {
	a.t.Helper()
	a.create(path, configMap("p", map[string]string{"a": "1", "b": "2"}))
	a.patch(jsonPatch, path+"/p", []object{
		{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "3"},
	})
	a.patch(mergePatch, path+"/p", object{"data": object{"b": nil}})
	a.patch(strategicPatch, path+"/p", object{"data": object{"c": "4"}})
	if got := fmt.Sprint(other.get(path + "/p")["data"]); got != "map[a:3 c:4]" {
		a.t.Errorf("server %s: after the patches %s", other.name, got)
	}
	a.fails(http.StatusUnprocessableEntity, "Invalid", call{
		method: http.MethodPatch, kind: jsonPatch, path: path + "/p",
		body: []object{{"op": "test", "path": "/data/a", "value": "1"}},
	})
	// Patches that meet are both made: a server tries again by itself.
	var both sync.WaitGroup
	for i, x := range []api{a, other} {
		both.Go(func() {
			for n := range 20 {
				body := object{"data": object{fmt.Sprintf("%d-%d", i, n): "x"}}
				status, _, err := x.ask(a.t.Context(), call{method: http.MethodPatch, kind: mergePatch, path: path + "/p", body: body})
				if err != nil || status != http.StatusOK {
					a.t.Errorf("server %s: patch %d: %d, %v", x.name, n, status, err)
				}
			}
		})
	}
	both.Wait()
	if data, _ := a.get(path + "/p").at("data").(map[string]any); len(data) != 2+2*20 {
		a.t.Errorf("%d of 42 fields are there", len(data))
	}
}

// applies: fields have owners.
func applies(a api, path string) {
	a.t.Helper()
	body := func(value string) object {
		return object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "s"}, "data": object{"shared": value}}
	}
	a.patch(applyPatch, path+"/s?fieldManager=one", body("1"))
	a.fails(http.StatusConflict, "Conflict", call{
		method: http.MethodPatch, kind: applyPatch, path: path + "/s?fieldManager=two", body: body("2"),
	})
	o := a.patch(applyPatch, path+"/s?fieldManager=two&force=true", body("2"))
	if o.text("data", "shared") != "2" {
		a.t.Errorf("after a forced apply: %v", o)
	}
	before := o.version()
	if o = a.patch(applyPatch, path+"/s?fieldManager=two", body("2")); o.version() != before {
		a.t.Errorf("the same apply made version %s of %s", o.version(), before)
	}
}

func secrets(a, other api, path string) {
	a.t.Helper()
	a.create(path, object{"metadata": object{"name": "s"}, "stringData": object{"password": "p"}, "immutable": true})
	if o := other.get(path + "/s"); o.text("data", "password") != "cA==" || o.text("type") != "Opaque" {
		a.t.Errorf("server %s: %v", other.name, o)
	}
	a.fails(http.StatusUnprocessableEntity, "Invalid", call{
		method: http.MethodPatch, kind: mergePatch, path: path + "/s", body: object{"stringData": object{"password": "q"}},
	})
	a.remove(path + "/s")
}

// deployments have defaults, a generation, a status and a scale of their own.
func deployments(a, other api, path string) {
	a.t.Helper()
	labels := object{"app": "d"}
	container := object{"name": "c", "image": "example.test/c:1"}
	o := a.create(path, object{"metadata": object{"name": "d"}, "spec": object{
		"replicas": 2, "selector": object{"matchLabels": labels},
		"template": object{"metadata": object{"labels": labels}, "spec": object{"containers": []object{container}}},
	}})
	if o.text("spec", "strategy", "type") != "RollingUpdate" || o.at("metadata", "generation") != 1.0 {
		a.t.Errorf("no defaults: %v", o)
	}
	scale := other.get(path + "/d/scale")
	scale.set(5, "spec", "replicas")
	other.update(path+"/d/scale", scale)
	a.patch(strategicPatch, path+"/d", object{"spec": object{"template": object{"spec": object{
		"containers": []object{{"name": "c", "image": "example.test/c:2"}, {"name": "e", "image": "example.test/e:1"}},
	}}}})
	a.patch(mergePatch, path+"/d/status", object{"status": object{"observedGeneration": 3}})
	o = other.get(path + "/d")
	containers, _ := o.at("spec", "template", "spec", "containers").([]any)
	if o.at("metadata", "generation") != 3.0 || o.at("spec", "replicas") != 5.0 || len(containers) != 2 || o.at("status", "observedGeneration") != 3.0 {
		a.t.Errorf("server %s: %v", other.name, o)
	}
	a.remove(path + "/d?propagationPolicy=Background")
	other.fails(http.StatusNotFound, "NotFound", call{method: http.MethodGet, path: path + "/d"})
}

// endings: an object with a finalizer stays until that is gone; collections are
// deleted by their labels.
func endings(a, other api, path string) {
	a.t.Helper()
	a.create(path, object{"metadata": object{"name": "f", "finalizers": []string{"example.test/f"}}})
	a.remove(path + "/f")
	if o := other.get(path + "/f"); o.text("metadata", "deletionTimestamp") == "" {
		a.t.Errorf("not being deleted: %v", o)
	}
	other.patch(mergePatch, path+"/f", object{"metadata": object{"finalizers": nil}})
	a.fails(http.StatusNotFound, "NotFound", call{method: http.MethodGet, path: path + "/f"})
	for i := range 30 {
		a.create(path, configMap(fmt.Sprintf("e%02d", i), nil, "odd", fmt.Sprint(i%2)))
	}
	a.remove(path + "?labelSelector=odd%3D1")
	if left := other.list(path + "?labelSelector=odd"); len(left) != 15 {
		a.t.Errorf("server %s: %d objects left, not 15", other.name, len(left))
	}
	a.remove(path)
	if left := other.list(path); len(left) != 0 {
		a.t.Errorf("server %s: %d objects left", other.name, len(left))
	}
}

// generatedNames differ, whichever server makes them up.
func generatedNames(t *testing.T, servers []*server) {
	path := api{servers[0], t}.namespace("generated") + "/configmaps"
	var running sync.WaitGroup
	for i := range 90 {
		s := servers[i%len(servers)]
		running.Go(func() {
			body := object{"metadata": object{"generateName": "g-"}}
			if status, _, err := s.ask(t.Context(), call{method: http.MethodPost, path: path, body: body}); err != nil || status != http.StatusCreated {
				t.Errorf("server %s: %d, %v", s.name, status, err)
			}
		})
	}
	running.Wait()
	for _, s := range servers {
		if n := len(api{s, t}.list(path)); n != 90 {
			t.Errorf("server %s: %d objects, not 90", s.name, n)
		}
	}
}
