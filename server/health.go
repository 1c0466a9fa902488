package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/kv"
)

const (
	// checkTimeout bounds one health check; etcd's request timeout is 7 s.
	checkTimeout = 5 * time.Second
	// leaderlessTimeout bounds it where the member knows no leader: an
	// election may be about to end, and what asks wants to know soon.
	leaderlessTimeout = time.Second
)

// check is one health check of livez and readyz.
type check struct {
	name string
	run  func(context.Context) verdict
}

// verdict is what a check found: the reason is empty where all is well. One that
// is minor is told, and does not count.
type verdict struct {
	reason, next string
	minor        bool
}

func (v verdict) bad() bool { return v.reason != "" && !v.minor }

// String is the verdict as a line about the check of that name, in etcd's form.
func (v verdict) line(name string) string {
	next := ""
	if v.next != "" {
		next = "; next: " + v.next
	}
	switch {
	case v.reason == "":
		return "[+]" + name + " ok\n"
	case v.minor:
		return "[!]" + name + " ok, but: " + v.reason + next + "\n"
	}
	return "[-]" + name + " failed: " + v.reason + next + "\n"
}

// fromError is the verdict about what should not fail.
func fromError(err error) verdict {
	if err == nil {
		return verdict{}
	}
	return verdict{reason: err.Error(), next: kv.NextStep(err)}
}

// readiness knows whether the member serves.
type readiness struct {
	// Set by newReadiness, then read only. The checks of etcd's come first, by
	// etcd's names.
	live, ready []check

	// Safe for concurrent use.
	stopping atomic.Bool
	counts   healthCounts
}

func newReadiness(store kv.Store, cluster kv.Cluster) *readiness {
	r := new(readiness)
	local := check{"serializable_read", func(ctx context.Context) verdict {
		return fromError(tryRead(ctx, store, kv.Eventual, checkTimeout))
	}}
	r.live = []check{local}
	r.ready = []check{
		{"data_corruption", func(context.Context) verdict { return corruption(cluster) }},
		local,
		{"linearizable_read", func(ctx context.Context) verdict {
			timeout := checkTimeout
			if cluster.Status().Leader == 0 {
				timeout = leaderlessTimeout
			}
			return fromError(tryRead(ctx, store, kv.Strong, timeout))
		}},
		{"non_learner", func(context.Context) verdict {
			if cluster.Status().Role == kv.LearnerRole {
				return verdict{reason: "not supported for learner"} // etcd's text
			}
			return verdict{}
		}},
		{"running", func(context.Context) verdict {
			if r.stopping.Load() {
				return verdict{reason: "this member is shutting down"}
			}
			return verdict{}
		}},
	}
	if own, ok := cluster.(kv.Diagnosed); ok {
		for i, c := range own.Conditions() {
			r.ready = append(r.ready, check{c.Name, func(context.Context) verdict {
				c := &own.Conditions()[i]
				return verdict{c.Reason, c.Next, c.Minor}
			}})
		}
	}
	return r
}

// awaitAuth makes the member not ready for as long as every call is refused
// because authentication is required and not on yet.
func (r *readiness) awaitAuth(guard kv.Guard) {
	r.ready = append(r.ready, check{"authentication", func(context.Context) verdict {
		if guard.Auth().Enabled {
			return verdict{}
		}
		return verdict{
			reason: "authentication is required, and is not on yet",
			next:   "a new cluster switches it on when it has its first leader: see the members' logs",
		}
	}})
}

// corruption looks for the alarm of etcd's that says that members disagree, and
// for the one that this member is wrong. Without one, a member that finds damage
// serves nothing at all.
func corruption(cluster kv.Cluster) verdict {
	switch alarmed(cluster, []string{kv.AlarmNoSpace.String()}) {
	case "":
		return verdict{}
	case "ALARM " + kv.AlarmDivergent.String():
		return verdict{
			reason: "the state of this member differs from that of a majority, and it does not serve",
			next:   "stop it, and start it with 'concord serve --rejoin'",
		}
	}
	return verdict{reason: "alarm activated: " + kv.AlarmCorrupt.String()} // etcd's text
}

// tryRead reads one key name at the given level.
func tryRead(ctx context.Context, store kv.Store, level kv.ReadLevel, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := store.Range(ctx, kv.Range{Key: []byte{0}, KeysOnly: true, Limit: 1, Level: level})
	return err
}

// install serves livez and readyz.
func (r *readiness) install(pages *routes) {
	installChecks(pages, "/livez", r.live)
	installChecks(pages, "/readyz", r.ready)
}

// installChecks serves all checks at path, without those that exclude= names,
// and each at a path of its own.
func installChecks(pages *routes, path string, checks []check) {
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
	list, healthy := runChecks(r.Context(), checks)
	if !healthy {
		http.Error(w, list, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, list)
	}
	fmt.Fprintln(w, "ok")
}

// runChecks tells whether all is well, and a line about each check.
func runChecks(ctx context.Context, checks []check) (list string, healthy bool) {
	var text strings.Builder
	healthy = true
	for _, c := range checks {
		v := c.run(ctx)
		healthy = healthy && !v.bad()
		text.WriteString(v.line(c.name))
	}
	return text.String(), healthy
}
