package server

import (
	"context"
	"encoding/json"
	"fmt"
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
func newHTTP(api *etcdapi.API, store kv.Store, cluster kv.Cluster) *routes {
	pages := newRoutes(api)
	pages.open("/version", get(serveVersion))
	pages.open("/health", get(serveHealth(store, cluster)))
	local := check{"serializable_read", readCheck(store, kv.Eventual)}
	install(pages, "/livez", []check{local})
	install(pages, "/readyz", []check{
		{"data_corruption", func(context.Context) error { return nil }}, // a corrupt member serves nothing at all
		local,
		{"linearizable_read", readCheck(store, kv.Strong)},
		{"non_learner", func(context.Context) error {
			if cluster.Status().Role == kv.LearnerRole {
				return fmt.Errorf("server is learner")
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
	serveJSON(w, http.StatusOK, struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
		Storage string `json:"storage"`
	}{etcdapi.Version, minor, minor})
}

// serveHealth answers as etcd's /health: for the cluster, or, with
// serializable=true, for this member alone.
func serveHealth(store kv.Store, cluster kv.Cluster) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		level := kv.Strong
		if r.URL.Query().Get("serializable") == "true" {
			level = kv.Eventual
		}
		reason := ""
		if level == kv.Strong && cluster.Status().Leader == 0 {
			reason = "RAFT NO LEADER"
		} else if err := readCheck(store, level)(r.Context()); err != nil {
			reason = "RANGE ERROR:" + err.Error()
		}
		status := http.StatusOK
		if reason != "" {
			status = http.StatusServiceUnavailable
		}
		serveJSON(w, status, struct {
			Health string `json:"health"`
			Reason string `json:"reason"`
		}{fmt.Sprint(reason == ""), reason})
	}
}

func serveJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
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
