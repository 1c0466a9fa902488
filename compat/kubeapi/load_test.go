package kubeapi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is writers and followers of one collection.
type load struct {
	t         *testing.T
	servers   []*server
	path      string
	followers []*follower
	stop      func() // ends the writers

	mu     sync.Mutex
	acked  []write
	tried  map[string]bool // name and value
	unsure int             // writes without an answer
	broken []string
}

// write is a change that a server has acknowledged.
type write struct{ kind, name, value, version, uid string }

// startLoad starts so many writers, which use the servers in turn, and two
// followers at each server, one of which ends its watch after every tenth event.
func startLoad(t *testing.T, servers []*server, namespace string, writers int) *load {
	t.Helper()
	l := &load{t: t, servers: servers, tried: map[string]bool{}}
	a := api{servers[0], t}
	l.path = a.namespace(namespace) + "/configmaps"
	version := a.get(l.path).version()
	for _, s := range servers {
		for _, cut := range []int{0, 10} {
			l.followers = append(l.followers, (&follower{server: s, path: l.path, cut: cut}).follow(t, version))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i := range writers {
		w := &writer{load: l, id: i, random: rand.New(rand.NewPCG(1, uint64(i))), states: map[string]state{}}
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.step(servers[(i+n)%len(servers)], n)
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// more waits for so many acknowledged writes from now on.
func (l *load) more(n int) {
	l.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	goal := count() + n
	until(l.t, fmt.Sprintf("%d more writes", n), func() bool { return count() >= goal })
}

// writer changes objects that nobody else changes.
type writer struct {
	*load
	id     int
	random *rand.Rand
	states map[string]state
}

// state is what a writer knows of an object.
type state struct {
	version string // "" if it is not there
	unsure  bool   // a write without an answer may have changed it, or may yet
}

// step reads an object, and creates, updates or deletes it as it was read.
func (w *writer) step(s *server, n int) {
	name, value := fmt.Sprintf("w%d-%d", w.id, w.random.IntN(4)), fmt.Sprint(n)
	known, path := w.states[name], w.path+"/"+name
	status, o, err := s.ask(context.Background(), call{method: http.MethodGet, path: path})
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		return
	}
	version := ""
	if status == http.StatusOK {
		version = o.version()
	}
	if !known.unsure && version != known.version {
		w.wrong("%s is at version %q, but %q was acknowledged", name, version, known.version)
	}
	c, done := call{method: http.MethodPost, path: w.path, body: configMap(name, map[string]string{"value": value})}, write{kind: added}
	switch {
	case version == "":
	case w.random.IntN(5) == 0:
		done = write{kind: deleted, uid: o.text("metadata", "uid")}
		c = call{method: http.MethodDelete, path: path, body: object{"preconditions": object{"resourceVersion": version}}}
	default:
		done = write{kind: modified}
		o.set(map[string]any{"value": value}, "data")
		c = call{method: http.MethodPut, path: path, body: o}
	}
	done.name, done.value = name, value
	w.note(func() { w.tried[name+" "+value] = true })
	status, o, err = s.ask(context.Background(), c)
	switch {
	case err == nil && status <= http.StatusCreated:
		w.states[name] = state{}
		if done.kind != deleted {
			done.version = o.version()
			w.states[name] = state{version: done.version}
		}
		w.note(func() { w.acked = append(w.acked, done) })
	case err == nil && status < http.StatusTooManyRequests && !known.unsure:
		w.wrong("%s %s: status %d: %s", done.kind, name, status, o.text("message"))
	default:
		w.states[name] = state{version, true}
		w.note(func() { w.unsure++ })
	}
}

func (l *load) note(what func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	what()
}

func (l *load) wrong(format string, args ...any) {
	l.note(func() { l.broken = append(l.broken, fmt.Sprintf(format, args...)) })
}

// check ends the writers and holds what the followers have seen to what was
// acknowledged, and what the servers list, now and at versions gone by, to it.
func (l *load) check() {
	l.t.Helper()
	l.stop()
	for _, text := range l.broken {
		l.t.Error(text)
	}
	const last = "z-last"
	api{l.servers[0], l.t}.create(l.path, configMap(last, map[string]string{"value": "0"}))
	l.tried[last+" 0"] = true
	var first []event
	var watches []int
	for i, f := range l.followers {
		events := f.until(l.t, "the last object", func(events []event) bool {
			return len(events) > 0 && events[len(events)-1].object.name() == last
		})
		watches = append(watches, f.watches)
		if i == 0 {
			first = events
		} else if a, b := lines(first), lines(events); !slices.Equal(a, b) {
			l.t.Errorf("followers differ: %d events at server %s, %d at %s; %s",
				len(a), l.followers[0].server.name, len(b), f.server.name, firstDifference(a, b))
		}
	}
	l.history(first)
	l.acknowledged(first)
	l.lists(first)
	l.t.Logf("%d writes acknowledged, %d without an answer; %d events at each of %d followers, by %v watches",
		len(l.acked), l.unsure, len(first), len(l.followers), watches)
}

func lines(events []event) (out []string) {
	for _, e := range events {
		out = append(out, e.line())
	}
	return out
}

func firstDifference(a, b []string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return fmt.Sprintf("from event %d:\n%s\n-\n%s", i,
		strings.Join(a[i:min(len(a), i+3)], "\n"), strings.Join(b[i:min(len(b), i+3)], "\n"))
}

// history: events are what somebody tried, once each, and possible in their order.
func (l *load) history(events []event) {
	l.t.Helper()
	there, seen := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		name := e.object.name()
		if there[name] != (e.kind != added) {
			l.t.Errorf("not possible: %s", e.line())
		}
		there[name] = e.kind != deleted
		if e.kind == deleted {
			continue
		}
		key := name + " " + e.object.text("data", "value")
		if !l.tried[key] || seen[key] {
			l.t.Errorf("tried %v, seen before %v: %s", l.tried[key], seen[key], e.line())
		}
		seen[key] = true
	}
}

// acknowledged: no write that was acknowledged is missing.
func (l *load) acknowledged(events []event) {
	l.t.Helper()
	seen := map[write]bool{}
	for _, e := range events {
		w := write{kind: e.kind, name: e.object.name()}
		if e.kind == deleted {
			w.uid = e.object.text("metadata", "uid")
		} else {
			w.value, w.version = e.object.text("data", "value"), e.object.version()
		}
		seen[w] = true
	}
	for _, w := range l.acked {
		if w.kind == deleted {
			w.value = ""
		}
		if !seen[w] {
			l.t.Errorf("acknowledged, but no event: %+v", w)
		}
	}
}

// lists: what the events add up to is listed at their versions by every server.
func (l *load) lists(events []event) {
	l.t.Helper()
	state, began := map[string]string{}, time.Now()
	checked := 0
	for i, e := range events {
		if e.kind == deleted {
			delete(state, e.object.name())
		} else {
			state[e.object.name()] = e.object.version() + " " + e.object.text("data", "value")
		}
		if i%max(1, len(events)/12) != 0 && i != len(events)-1 {
			continue
		}
		checked++
		for _, s := range l.servers {
			for _, query := range []string{"", "&limit=5"} {
				got := map[string]string{}
				for _, o := range (api{s, l.t}).list(l.path + "?resourceVersionMatch=Exact&resourceVersion=" + e.object.version() + query) {
					got[o.name()] = o.version() + " " + o.text("data", "value")
				}
				if fmt.Sprint(got) != fmt.Sprint(state) {
					l.t.Errorf("server %s at version %s%s: %v, not %v", s.name, e.object.version(), query, got, state)
				}
			}
		}
	}
	l.t.Logf("%d lists at %d versions, in %v", checked*len(l.servers)*2, checked, time.Since(began).Round(time.Millisecond))
}
