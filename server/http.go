package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

// newHTTP serves the version and health pages in etcd's shapes.
func newHTTP(api *etcdapi.API, store kv.Store, cluster kv.Cluster, ready *readiness) *routes {
	pages := newRoutes(api)
	pages.open("/version", get(serveVersion))
	pages.open("/health", get(serveHealth(store, cluster, ready.counts.tell)))
	ready.install(pages)
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

// alarmed tells which alarm makes the member unhealthy, if any: one that another
// member differs does not.
func alarmed(cluster kv.Cluster, excluded []string) string {
	source, ok := cluster.(interface{ Alarms() []kv.Alarm })
	if !ok {
		return ""
	}
	for _, a := range source.Alarms() {
		if a.Type == kv.AlarmDivergent && a.Member != cluster.Status().Member {
			continue
		}
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
	if err := tryRead(ctx, store, level, checkTimeout); err != nil {
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
