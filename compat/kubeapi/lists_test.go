package kubeapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// list reads a list to its end, page by page if the path has a limit. All pages
// are of one version.
func (a api) list(path string) (all []object) {
	a.t.Helper()
	base, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		a.t.Fatal(err)
	}
	for version := ""; ; {
		page := a.get(base + "?" + values.Encode())
		if version != "" && page.version() != version {
			a.t.Fatalf("%s at server %s: a page at version %s after %s", path, a.name, page.version(), version)
		}
		version = page.version()
		all = append(all, page.items()...)
		next := page.text("metadata", "continue")
		if next == "" {
			return all
		}
		limit, err := strconv.Atoi(values.Get("limit"))
		if err != nil || len(page.items()) > limit {
			a.t.Fatalf("%s: a page of %d (%v)", path, len(page.items()), err)
		}
		values = url.Values{"limit": values["limit"], "continue": {next}, "labelSelector": values["labelSelector"]}
	}
}

// many is how many objects lists have here; with their payload they are several
// messages of a range stream.
const many = 1100

// fill makes many objects through all servers at once.
func fill(t *testing.T, servers []*server, path string) {
	t.Helper()
	var running sync.WaitGroup
	payload := strings.Repeat("0123456789abcdef", 256)
	for i := range 9 {
		running.Go(func() {
			for n := i; n < many; n += 9 {
				o := configMap(fmt.Sprintf("o%04d", n), map[string]string{"payload": payload}, "third", fmt.Sprint(n%3))
				s := servers[i%len(servers)]
				status, _, err := s.ask(t.Context(), call{method: http.MethodPost, path: path, body: o})
				if err != nil || status != http.StatusCreated {
					t.Errorf("server %s: object %d: %d, %v", s.name, n, status, err)
				}
			}
		})
	}
	running.Wait()
}

func testLists(t *testing.T, servers []*server) {
	path := api{servers[0], t}.namespace("lists") + "/configmaps"
	fill(t, servers, path)
	old := api{servers[0], t}.get(path + "?limit=1").version()
	for _, s := range servers {
		whole(t, s, path)
		changing(t, s, path)
		atVersion(t, s, path, old)
	}
}

// whole: lists in one and in pages are the same, sorted, and can be selected from.
func whole(t *testing.T, s *server, path string) {
	a := api{s, t}
	for query, n := range map[string]int{
		"": many, "?limit=100": many, "?resourceVersion=0": many, "?limit=1000000": many,
		"?labelSelector=third%3D1&limit=50": (many + 1) / 3, "?fieldSelector=metadata.name%3Do0007": 1,
		"?labelSelector=third%20in%20(0%2C2)": many - (many+1)/3,
	} {
		list := a.list(path + query)
		names := make([]string, len(list))
		for i, o := range list {
			names[i] = o.name()
		}
		if len(slices.Compact(slices.Clone(names))) != n || !slices.IsSorted(names) {
			t.Errorf("server %s, %q: %d objects in place of %d, sorted %v", s.name, query, len(list), n, slices.IsSorted(names))
		}
	}
	page := a.get(path + "?limit=100")
	if left := page.at("metadata", "remainingItemCount"); left != float64(many-100) {
		t.Errorf("server %s: %v objects remain", s.name, left)
	}
}

// changing: pages are of one moment, whatever happens between them.
func changing(t *testing.T, s *server, path string) {
	a := api{s, t}
	first := a.get(path + "?limit=10")
	victim, extra := "o0500", "o0500-extra"
	kept := a.get(path + "/" + victim)
	a.remove(path + "/" + victim)
	a.create(path, configMap(extra, nil))
	rest := a.list(path + "?limit=400&continue=" + url.QueryEscape(first.text("metadata", "continue")))
	has := func(name string) bool {
		return slices.ContainsFunc(rest, func(o object) bool { return o.name() == name })
	}
	if len(rest) != many-10 || !has(victim) || has(extra) {
		t.Errorf("server %s: %d objects, the deleted one %v, the new one %v", s.name, len(rest), has(victim), has(extra))
	}
	a.remove(path + "/" + extra)
	a.create(path, configMap(victim, map[string]string{"payload": kept.text("data", "payload")}, "third", kept.text("metadata", "labels", "third")))
}

// atVersion: lists at a version gone by, at least at one, and at one to come.
func atVersion(t *testing.T, s *server, path, old string) {
	a := api{s, t}
	a.patch(mergePatch, path+"/o0001", object{"data": object{"by": s.name}})
	now := a.get(path + "/o0001").version()
	for _, limit := range []string{"", "&limit=300"} {
		for _, o := range a.list(path + "?resourceVersionMatch=Exact&resourceVersion=" + old + limit) {
			if number(o.version()) > number(old) {
				t.Errorf("server %s: %s of version %s in a list at %s", s.name, o.name(), o.version(), old)
			}
		}
	}
	for match, version := range map[string]string{"NotOlderThan": now, "Exact": now} {
		list := a.get(path + "?resourceVersionMatch=" + match + "&resourceVersion=" + version)
		if i := slices.IndexFunc(list.items(), func(o object) bool { return o.name() == "o0001" }); i < 0 ||
			list.items()[i].version() != now || number(list.version()) < number(now) {
			t.Errorf("server %s: %s lists version %s without the last write", s.name, match, list.version())
		}
	}
	future := fmt.Sprint(number(now) + 1_000_000)
	a.fails(http.StatusGatewayTimeout, "Timeout", call{method: http.MethodGet, path: path + "?resourceVersionMatch=NotOlderThan&resourceVersion=" + future})
}
