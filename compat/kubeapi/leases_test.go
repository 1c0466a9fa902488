package kubeapi

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// eventTTL is how long Kubernetes keeps events here; its default is an hour.
const eventTTL = 10 * time.Second

// testEvents: events are gone after their time, and not before it.
func testEvents(t *testing.T, servers []*server) {
	startEvents(t, servers, "events").gone()
}

// events are events that are about to end.
type events struct {
	t         *testing.T
	servers   []*server
	path      string
	began     map[string]time.Time
	followers []*follower
}

// startEvents makes some events and follows what becomes of them.
func startEvents(t *testing.T, servers []*server, namespace string) *events {
	t.Helper()
	a := api{servers[0], t}
	e := &events{t: t, servers: servers, path: a.namespace(namespace) + "/events", began: map[string]time.Time{}}
	version := a.get(e.path).version()
	for _, s := range servers {
		e.followers = append(e.followers, (&follower{server: s, path: e.path}).follow(t, version))
	}
	for i := range 30 {
		name := fmt.Sprintf("e%02d", i)
		e.began[name] = time.Now()
		api{servers[i%len(servers)], t}.create(e.path, object{
			"metadata": object{"name": name}, "reason": "Tried", "message": "an event", "type": "Normal",
			"involvedObject": object{"kind": "Pod", "namespace": namespace, "name": "p"},
		})
	}
	return e
}

// gone waits until each event has been seen to come and go.
func (e *events) gone() {
	e.t.Helper()
	for _, f := range e.followers {
		seen := f.until(e.t, "the end of all events", func(seen []event) bool { return len(seen) == 2*len(e.began) })
		ends := map[string]bool{}
		for _, one := range seen {
			name := one.object.name()
			if one.kind != deleted {
				continue
			}
			if lived := one.at.Sub(e.began[name]); lived < eventTTL || ends[name] {
				e.t.Errorf("server %s: event %s lived for %v of %v; ended before: %v", f.server.name, name, lived, eventTTL, ends[name])
			}
			ends[name] = true
		}
		if len(ends) != len(e.began) {
			e.t.Errorf("server %s: %d of %d events ended", f.server.name, len(ends), len(e.began))
		}
		if left := (api{f.server, e.t}).list(e.path); len(left) != 0 {
			e.t.Errorf("server %s lists %d events", f.server.name, len(left))
		}
	}
}

// testElection: candidates at all servers write the same Lease, as kubelets and
// leader elections do; each of its values belongs to one of them.
func testElection(t *testing.T, servers []*server) {
	const candidates, rounds = 6, 12
	api{servers[0], t}.namespace("leases")
	path := "/apis/coordination.k8s.io/v1/namespaces/leases/leases"
	api{servers[0], t}.create(path, object{"metadata": object{"name": "l"}, "spec": object{"leaseTransitions": 0}})
	path += "/l"
	var running sync.WaitGroup
	var mu sync.Mutex
	winners, conflicts := map[float64]int{}, 0
	for i := range candidates {
		a := api{servers[i%len(servers)], t}
		running.Go(func() {
			for won := 0; won < rounds && t.Context().Err() == nil; {
				_, o, err := a.ask(t.Context(), call{method: http.MethodGet, path: path})
				term, is := o.at("spec", "leaseTransitions").(float64)
				if err != nil || !is {
					t.Errorf("server %s: %v, %v", a.name, o, err)
					return
				}
				o["spec"] = object{
					"leaseTransitions": term + 1, "holderIdentity": fmt.Sprint(i), "leaseDurationSeconds": 15,
					"renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
				}
				status, answer, err := a.ask(t.Context(), call{method: http.MethodPut, path: path, body: o})
				if err != nil || status != http.StatusOK && status != http.StatusConflict {
					t.Errorf("server %s: %d %v, %v", a.name, status, answer, err)
					return
				}
				mu.Lock()
				if status == http.StatusOK {
					won++
					winners[term+1]++
				} else {
					conflicts++
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if end := (api{servers[0], t}).get(path).at("spec", "leaseTransitions"); end != float64(candidates*rounds) || len(winners) != candidates*rounds {
		t.Errorf("%v terms, %d of them different, in place of %d", end, len(winners), candidates*rounds)
	}
	t.Logf("%d terms, %d conflicts", len(winners), conflicts)
}

// addresses are those under which the servers know each other, each kept by a
// lease of 15 seconds.
func addresses(a api) (list []string) {
	a.t.Helper()
	slices := a.list("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
	for _, s := range slices {
		endpoints, _ := s["endpoints"].([]any)
		for _, e := range endpoints {
			for _, address := range object(e.(map[string]any))["addresses"].([]any) {
				list = append(list, address.(string))
			}
		}
	}
	return list
}

// testAddresses: servers find each other, and the one that was killed is dropped
// when its lease has ended.
func testAddresses(t *testing.T, servers []*server) {
	a, dead := api{servers[0], t}, servers[1]
	until(t, "three addresses", func() bool { return len(addresses(a)) == 3 })
	dead.end(os.Kill)
	began := time.Now()
	until(t, "two addresses", func() bool {
		left := addresses(a)
		return len(left) == 2 && left[0] != "192.0.2."+dead.name && left[1] != "192.0.2."+dead.name
	})
	t.Logf("the address of a server that was killed was dropped after %v", time.Since(began).Round(time.Second))
	dead.launch(t)
	until(t, "three addresses again", func() bool { return len(addresses(a)) == 3 })
}
