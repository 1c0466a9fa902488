package kubeapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	group       = "compat.example.test"
	widgets     = "/apis/" + group + "/v1/namespaces/custom/widgets"
	definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	definition  = definitions + "/widgets." + group
)

// testCustom: a resource of one's own comes, is used and goes, at all servers.
func testCustom(t *testing.T, servers []*server) {
	a := api{servers[0], t}
	a.namespace("custom")
	define(t, servers)
	b, c := api{servers[1], t}, api{servers[2], t}
	f := (&follower{server: c.server, path: widgets}).follow(t, c.get(widgets).version())
	for i := range 30 {
		api{servers[i%3], t}.create(widgets, widget(fmt.Sprintf("w%02d", i), "x"))
	}
	if n := len(b.list(widgets + "?limit=7")); n != 30 {
		t.Errorf("%d widgets in place of 30", n)
	}
	o := b.patch(mergePatch, widgets+"/w00", object{"spec": object{"payload": "y"}, "status": object{"phase": "ignored"}})
	if o.at("metadata", "generation") != 2.0 || o.at("status") != nil {
		t.Errorf("after a patch: %v", o)
	}
	c.patch(mergePatch, widgets+"/w00/status", object{"status": object{"phase": "done"}})
	applied := object{"apiVersion": group + "/v1", "kind": "Widget", "metadata": object{"name": "w01"}, "spec": object{"payload": "z"}}
	a.patch(applyPatch, widgets+"/w01?fieldManager=one&force=true", applied)
	if o = a.get(widgets + "/w00"); o.text("status", "phase") != "done" || o.text("spec", "payload") != "y" {
		t.Errorf("w00 is %v", o)
	}
	a.fails(http.StatusUnprocessableEntity, "Invalid", call{method: http.MethodPost, path: widgets, body: object{
		"apiVersion": group + "/v1", "kind": "Widget", "metadata": object{"name": "bad"}, "spec": object{"payload": 1},
	}})
	large(servers, t)
	b.remove(widgets)
	f.until(t, "the end of all widgets", func(events []event) bool {
		left := 0
		for _, e := range events {
			switch e.kind {
			case added:
				left++
			case deleted:
				left--
			}
		}
		return left == 0 && len(events) > 2*30
	})
	undefine(t, servers)
}

func widget(name, payload string) object {
	return object{
		"apiVersion": group + "/v1", "kind": "Widget", "metadata": object{"name": name}, "spec": object{"payload": payload},
	}
}

// define makes the resource and waits until all servers have it.
func define(t *testing.T, servers []*server) {
	t.Helper()
	properties := func(name string) object {
		return object{"type": "object", "properties": object{name: object{"type": "string"}}}
	}
	api{servers[0], t}.create(definitions, object{
		"metadata": object{"name": "widgets." + group},
		"spec": object{
			"group": group, "scope": "Namespaced",
			"names": object{"plural": "widgets", "singular": "widget", "kind": "Widget"},
			"versions": []object{{
				"name": "v1", "served": true, "storage": true, "subresources": object{"status": object{}},
				"schema": object{"openAPIV3Schema": object{
					"type": "object", "properties": object{"spec": properties("payload"), "status": properties("phase")},
				}},
			}},
		},
	})
	served(t, servers, http.StatusOK)
}

// served waits until the list of widgets is answered with a code everywhere.
func served(t *testing.T, servers []*server, code int) {
	t.Helper()
	for _, s := range servers {
		until(t, fmt.Sprintf("%d for widgets at server %s", code, s.name), func() bool {
			status, _, err := s.page(t.Context(), widgets)
			return err == nil && status == code
		})
	}
}

// large: an object of nearly 1.5 MiB is stored and read; one of more is refused
// by the store, one of 3 MiB by the server.
func large(servers []*server, t *testing.T) {
	a := api{servers[0], t}
	payload := strings.Repeat("0123456789abcdef", 90_000)
	a.create(widgets, widget("large", payload))
	for _, s := range servers {
		if got := (api{s, t}).get(widgets+"/large").text("spec", "payload"); got != payload {
			t.Errorf("server %s: %d bytes of %d", s.name, len(got), len(payload))
		}
	}
	o := a.do(call{method: http.MethodPost, path: widgets, body: widget("larger", payload+payload[:1<<18])}, http.StatusInternalServerError)
	if o.text("message") != "etcdserver: request is too large" {
		t.Errorf("refused with %v", o)
	}
	a.do(call{method: http.MethodPost, path: widgets, body: widget("largest", payload+payload+payload)}, http.StatusRequestEntityTooLarge)
}

// undefine: objects go with their resource, and do not come back with it.
func undefine(t *testing.T, servers []*server) {
	t.Helper()
	a := api{servers[0], t}
	for i := range 5 {
		a.create(widgets, widget(fmt.Sprint("left-", i), "x"))
	}
	for range 2 {
		a.remove(definition)
		served(t, servers, http.StatusNotFound)
		until(t, "the definition gone", func() bool {
			status, _, err := a.page(t.Context(), definition)
			return err == nil && status == http.StatusNotFound
		})
		define(t, servers)
		if left := a.list(widgets); len(left) != 0 {
			t.Errorf("%d widgets are left", len(left))
		}
	}
	a.remove(definition)
	served(t, servers, http.StatusNotFound)
}
