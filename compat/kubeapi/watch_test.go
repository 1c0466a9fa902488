package kubeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// Kinds of events.
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
	bookmark = "BOOKMARK"
	failure  = "ERROR"
)

// event is a change as a watch tells it.
type event struct {
	kind   string
	object object
	at     time.Time
}

// line is an event in words, by which two of them are compared.
func (e event) line() string {
	return fmt.Sprintf("%s %s %s value=%s uid=%s", e.object.version(), e.kind, e.object.name(),
		e.object.text("data", "value"), e.object.text("metadata", "uid"))
}

// refusal is a status in place of an answer.
type refusal struct{ status object }

func (r refusal) Error() string { return fmt.Sprintf("refused: %v", map[string]any(r.status)) }

// gone says that what was asked for is not kept any more.
func gone(err error) bool {
	var r refusal
	return errors.As(err, &r) && r.status.at("code") == float64(http.StatusGone) && r.status.text("reason") == "Expired"
}

// watch yields the events of a watch until it ends, which is no error, or until
// yield returns false. The path has the query.
func (s *server) watch(ctx context.Context, path string, yield func(event) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := s.open(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	if answer.StatusCode != http.StatusOK {
		var status object
		if err := lines.Decode(&status); err != nil {
			return err
		}
		return refusal{status}
	}
	for {
		var line struct {
			Type   string
			Object object
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if line.Type == failure {
			return refusal{line.Object}
		}
		if !yield(event{line.Type, line.Object, time.Now()}) {
			return nil
		}
	}
}

// follower watches a collection as Kubernetes' own clients do: where a watch
// ends, it goes on after the last version that it has seen.
type follower struct {
	server *server
	path   string
	cut    int // ends its watch itself after so many events; 0 is never

	mu      sync.Mutex
	version string
	events  []event
	watches int
	broken  error
}

// follow starts a follower that ends with the test.
func (f *follower) follow(t *testing.T, version string) *follower {
	t.Helper()
	f.version = version
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

func (f *follower) run(ctx context.Context) {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil && f.err() == nil {
		f.mu.Lock()
		path := f.path + "?watch=1&allowWatchBookmarks=true&resourceVersion=" + f.version
		f.watches++
		f.mu.Unlock()
		seen := 0
		err := f.server.watch(ctx, path, func(e event) bool {
			seen++
			return f.see(e) && (f.cut == 0 || seen < f.cut)
		})
		if gone(err) {
			f.mu.Lock()
			f.broken = errors.Join(f.broken, err)
			f.mu.Unlock()
		}
		if f.cut == 0 || err != nil {
			<-pause.C
		}
	}
}

// see takes an event. Versions grow, but for keys that left with their lease in
// one revision.
func (f *follower) see(e event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, before := number(e.object.version()), number(f.version)
	together := e.kind == bookmark || e.kind == deleted && len(f.events) > 0 && f.events[len(f.events)-1].kind == deleted
	if now < before || now == before && !together {
		f.broken = fmt.Errorf("server %s: after version %s: %s", f.server.name, f.version, e.line())
		return false
	}
	f.version = e.object.version()
	if e.kind != bookmark {
		f.events = append(f.events, e)
	}
	return true
}

func (f *follower) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// seen returns the events until now.
func (f *follower) seen() []event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// until waits until the follower has seen what is asked for, and returns all.
func (f *follower) until(t *testing.T, what string, condition func([]event) bool) []event {
	t.Helper()
	until(t, "seen: "+what, func() bool { return f.err() != nil || condition(f.seen()) })
	if err := f.err(); err != nil {
		t.Fatal(err)
	}
	return f.seen()
}

// bounded ends a watch that never says what a test waits for.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// testWatches: what a watch begins with, and what it says beside events.
func testWatches(t *testing.T, servers []*server) {
	a := api{servers[0], t}
	path := a.namespace("watches") + "/configmaps"
	var versions []string
	for i := range 40 {
		o := a.create(path, configMap(fmt.Sprintf("c%02d", i), nil, "side", "left"))
		versions = append(versions, o.version())
	}
	for _, s := range servers {
		for _, from := range []int{0, 1, 20, 38} {
			var names []string
			err := s.watch(bounded(t), path+"?watch=1&resourceVersion="+versions[from], func(e event) bool {
				names = append(names, e.object.name())
				return e.object.name() != "c39"
			})
			if err != nil || len(names) != 39-from || names[0] != fmt.Sprintf("c%02d", from+1) {
				t.Errorf("server %s, from event %d: %q, %v", s.name, from, names, err)
			}
		}
		initialEvents(t, s, path)
		selected(t, s, path)
		bookmarks(t, s, path)
	}
}

// initialEvents: a list in the form of a watch, with a mark where it ends.
func initialEvents(t *testing.T, s *server, path string) {
	t.Helper()
	n := 0
	err := s.watch(bounded(t), path+"?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
		func(e event) bool {
			if e.kind == added {
				n++
			}
			return e.kind != bookmark || e.object.text("metadata", "annotations", "k8s.io/initial-events-end") != "true"
		})
	if err != nil || n < 40 {
		t.Errorf("server %s: %d events before the mark, %v", s.name, n, err)
	}
}

// selected: what leaves a selection is deleted for its watch, and what enters it
// is added.
func selected(t *testing.T, s *server, path string) {
	t.Helper()
	a := api{s, t}
	version := a.get(path + "?limit=1").version()
	for _, side := range []string{"right", "left"} {
		a.patch(mergePatch, path+"/c00", object{"metadata": object{"labels": object{"side": side}}})
	}
	var got []string
	err := s.watch(bounded(t), path+"?watch=1&labelSelector=side%3Dleft&resourceVersion="+version, func(e event) bool {
		got = append(got, e.kind+" "+e.object.name())
		return len(got) < 2
	})
	if err != nil || !slices.Equal(got, []string{deleted + " c00", added + " c00"}) {
		t.Errorf("server %s: %q, %v", s.name, got, err)
	}
}

// bookmarks: before a watch ends by its own time, the cache says how far it is.
func bookmarks(t *testing.T, s *server, path string) {
	t.Helper()
	if s.uncached() {
		return // the store marks idle watches every ten minutes
	}
	a, change, marks := api{s, t}, object{"data": object{"by": s.name}}, 0
	before := a.get(path + "?limit=1").version()
	after := a.patch(mergePatch, path+"/c01", change).version()
	err := s.watch(bounded(t), path+"?watch=1&allowWatchBookmarks=true&timeoutSeconds=4&resourceVersion="+before, func(e event) bool {
		if e.kind == bookmark && number(e.object.version()) >= number(after) {
			marks++
		} else if e.object.version() == after { // marks come for what happens while one watches
			after = a.patch(mergePatch, path+"/c02", change).version()
		}
		return true
	})
	if err != nil || marks == 0 {
		t.Errorf("server %s: %d bookmarks, %v", s.name, marks, err)
	}
}
