package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

// checkTimeout bounds one health check; etcd's request timeout is 7 s.
const checkTimeout = 5 * time.Second

// check is one health check of livez and readyz, by etcd's name.
type check struct {
	name string
	run  func(context.Context) error
}

// newHTTP serves the version and health pages in etcd's shapes.
func newHTTP(api *etcdapi.API, store kv.Store, cluster kv.Cluster, checked *healthCounts) *routes {
	pages := newRoutes(api)
	pages.open("/version", get(serveVersion))
	pages.open("/health", get(serveHealth(store, cluster, checked.tell)))
	local := check{"serializable_read", readCheck(store, kv.Eventual)}
	install(pages, "/livez", []check{local})
	install(pages, "/readyz", []check{
		{"data_corruption", corruptCheck(cluster)},
		local,
		{"linearizable_read", readCheck(store, kv.Strong)},
		{"non_learner", func(context.Context) error {
			if cluster.Status().Role == kv.LearnerRole {
				return errors.New("not supported for learner") // etcd's text
			}
			return nil
		}},
	})
	return pages
}

// get lets only GET through.
func get(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func serveVersion(w http.ResponseWriter, _ *http.Request) {
	minor := etcdapi.Version[:strings.LastIndexByte(etcdapi.Version, '.')] + ".0"
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
		Storage string `json:"storage"`
	}{etcdapi.Version, minor, minor})
}

// serveHealth answers as etcd's /health: for the cluster, or, with
// serializable=true, for this member alone; exclude= names alarms that are no
// reason.
func serveHealth(store kv.Store, cluster kv.Cluster, tell func(ok bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		reason := alarmed(cluster, query["exclude"])
		if reason == "" {
			reason = unwell(r.Context(), store, cluster, query.Get("serializable") == "true")
		}
		tell(reason == "")
		if reason != "" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8") // as http.Error, which etcd uses
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		writeJSON(w, struct {
			Health string `json:"health"`
			Reason string `json:"reason"`
		}{fmt.Sprint(reason == ""), reason})
		if reason != "" {
			fmt.Fprintln(w)
		}
	}
}

// alarmed tells which alarm makes the member unhealthy, if any.
func alarmed(cluster kv.Cluster, excluded []string) string {
	source, ok := cluster.(interface{ Alarms() []kv.Alarm })
	if !ok {
		return ""
	}
	for _, a := range source.Alarms() {
		if name := a.Type.String(); !slices.Contains(excluded, name) {
			return "ALARM " + name
		}
	}
	return ""
}

// unwell tells what is wrong with the cluster, or this member alone, if anything
// is.
func unwell(ctx context.Context, store kv.Store, cluster kv.Cluster, local bool) string {
	level := kv.Eventual
	if !local {
		if level = kv.Strong; cluster.Status().Leader == 0 {
			return "RAFT NO LEADER"
		}
	}
	if err := readCheck(store, level)(ctx); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}

// writeJSON writes no line break, as etcd does not.
func writeJSON(w io.Writer, v any) {
	text, err := json.Marshal(v)
	if err != nil { // for no type that is used here
		text = []byte("{}")
	}
	_, _ = w.Write(text) // the client may have gone
}

// readCheck reads one key name at the given level.
func readCheck(store kv.Store, level kv.ReadLevel) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		_, err := store.Range(ctx, kv.Range{Key: []byte{0}, KeysOnly: true, Limit: 1, Level: level})
		return err
	}
}

// corruptCheck looks for the alarm of etcd's that says that members disagree.
// Without one, a member that finds damage serves nothing at all.
func corruptCheck(cluster kv.Cluster) func(context.Context) error {
	return func(context.Context) error {
		if alarmed(cluster, []string{kv.AlarmNoSpace.String()}) != "" {
			return errors.New("alarm activated: " + kv.AlarmCorrupt.String())
		}
		return nil
	}
}

// install serves all checks at path, without those that exclude= names, and
// each at a path of its own.
func install(pages *routes, path string, checks []check) {
	pages.open(path, get(func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		serveChecks(w, r, slices.DeleteFunc(slices.Clone(checks), func(c check) bool {
			return slices.Contains(excluded, c.name)
		}))
	}))
	for i := range checks {
		pages.open(path+"/"+checks[i].name, get(func(w http.ResponseWriter, r *http.Request) {
			serveChecks(w, r, checks[i:i+1])
		}))
	}
}

// serveChecks lists each check when one fails or verbose is asked for.
func serveChecks(w http.ResponseWriter, r *http.Request, checks []check) {
	var list strings.Builder
	healthy := true
	for _, c := range checks {
		if err := c.run(r.Context()); err != nil {
			healthy = false
			fmt.Fprintf(&list, "[-]%s failed: %v\n", c.name, err)
		} else {
			fmt.Fprintf(&list, "[+]%s ok\n", c.name)
		}
	}
	if !healthy {
		http.Error(w, list.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, list.String())
	}
	fmt.Fprintln(w, "ok")
}
