// Package restapi is Concord's own HTTP API on kv: JSON in snake_case, ids in
// hexadecimal, errors as a code, a message and the next step. api/openapi.yaml
// describes it.
package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Prefix is where all paths are.
const Prefix = "/v1/"

const (
	// bodyBytes bounds a request.
	bodyBytes = 64 << 10
	// callTimeout bounds what a request asks for; a caller may give up sooner.
	callTimeout = 10 * time.Second
)

// Route is one request that is answered.
type Route struct {
	Method, Path string
	// Right is what it asks of its caller. Whoever serves it checks that, and
	// puts the caller into the request's context.
	Right kv.Right
	Serve http.HandlerFunc
}

// api answers for a cluster.
type api struct{ cluster kv.Cluster }

// Routes are all requests about a cluster. What a cluster does not offer
// answers with an error of the code [kv.Unsupported].
func Routes(c kv.Cluster) []Route {
	a := &api{c}
	return []Route{
		{http.MethodGet, "/v1/cluster/status", kv.AnyUser, serve(a.status)},
		{http.MethodGet, "/v1/cluster/members", kv.AnyUser, serve(a.members)},
		{http.MethodGet, "/v1/cluster/autopilot", kv.AnyUser, serve(a.autopilot)},
		{http.MethodPut, "/v1/cluster/autopilot", kv.ManageCluster, serve(a.setAutopilot)},
		{http.MethodPost, "/v1/cluster/add", kv.ManageCluster, serve(a.add)},
		{http.MethodPost, "/v1/cluster/promote", kv.ManageCluster, serve(a.promote)},
		{http.MethodPost, "/v1/cluster/remove", kv.ManageCluster, serve(a.remove)},
		{http.MethodPost, "/v1/cluster/move-leader", kv.ManageCluster, serve(a.moveLeader)},
		{http.MethodPost, "/v1/cluster/leave", kv.ManageCluster, serve(a.leave)},
	}
}

// named ends a path that has a name or id in it, which is the path's last part
// and the request's [http.Request.PathValue] "name".
const named = "/{name}"

// inPath is a request of which a part is in the path.
type inPath interface{ setName(string) }

// NoRoute answers requests below [Prefix] that no route takes.
func NoRoute(routes []Route) http.HandlerFunc {
	methods, all := map[string][]string{}, []string{}
	for _, r := range routes {
		methods[r.Path] = append(methods[r.Path], r.Method)
		all = append(all, r.Method+" "+r.Path)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		allowed := methods[r.URL.Path]
		if parent := path.Dir(r.URL.Path); allowed == nil { // which may have a part that is a name
			allowed = methods[parent+named]
		}
		if allowed != nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			write(w, http.StatusMethodNotAllowed, Error{codeName(kv.Unsupported), r.Method + " is not for " + r.URL.Path, "use " + strings.Join(allowed, " or ")})
			return
		}
		Refuse(w, kv.WithNext(kv.Errorf(kv.NotFound, "there is no %s", r.URL.Path), "there are: "+strings.Join(all, ", ")))
	}
}

// serve makes a handler of a function from a request to an answer.
func serve[Q, A any](do func(context.Context, *Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		request := new(Q)
		if err := read(http.MaxBytesReader(w, r.Body, bodyBytes), request); err != nil {
			Refuse(w, err)
			return
		}
		if r, name := any(request), r.PathValue("name"); name != "" {
			r.(inPath).setName(name)
		}
		answer, err := do(ctx, request)
		if err != nil {
			Refuse(w, err)
			return
		}
		write(w, http.StatusOK, answer)
	}
}

// read decodes a body; none is as good as {}.
func read(body io.Reader, request any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(request)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("there is something behind it")
	}
	return kv.Errorf(kv.InvalidArgument, "the body is not the JSON that is wanted: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func write(w http.ResponseWriter, status int, answer any) {
	text, err := json.Marshal(answer)
	if err != nil { // for no type that is used here
		status, text = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may have gone
}

// hex writes a 64-bit number as ids are written.
func hex(n uint64) string { return strconv.FormatUint(n, 16) }

// nothing is the request of those that have none.
type nothing struct{}

// offers returns a cluster or store as T, which a program need not offer.
func offers[T any](from any) (t T, err error) {
	if t, ok := from.(T); ok {
		return t, nil
	}
	return t, kv.WithNext(kv.ErrUnsupported, "this member was started by a program that does not offer it")
}

func (a *api) status(ctx context.Context, _ *nothing) (s Status, err error) {
	overseer, err := offers[kv.Overseer](a.cluster)
	if err != nil {
		return s, err
	}
	o, err := overseer.Overview(ctx)
	if err != nil {
		return s, err
	}
	return fromOverview(&o), nil
}

func (a *api) members(ctx context.Context, _ *nothing) (Members, error) {
	all, err := a.cluster.Members(ctx)
	out := Members{[]Member{}}
	for i := range all {
		out.Members = append(out.Members, fromMember(&all[i]))
	}
	return out, err
}

func (a *api) autopilot(ctx context.Context, _ *nothing) (out Autopilot, err error) {
	p, err := offers[kv.Pilot](a.cluster)
	if err != nil {
		return out, err
	}
	s, err := p.Autopilot(ctx)
	if err != nil {
		return out, err
	}
	return fromAutopilot(&s), nil
}

func (a *api) setAutopilot(ctx context.Context, c *AutopilotChange) (out Autopilot, err error) {
	p, err := offers[kv.Pilot](a.cluster)
	if err != nil {
		return out, err
	}
	s, err := p.Autopilot(ctx)
	if err != nil {
		return out, err
	}
	c.apply(&s.Autopilot)
	if err := p.SetAutopilot(ctx, s.Autopilot); err != nil {
		return out, err
	}
	return a.autopilot(ctx, nil)
}

func (a *api) add(ctx context.Context, p *Place) (Changed, error) {
	if len(p.PeerAddrs) == 0 {
		return Changed{}, kv.Errorf(kv.InvalidArgument, "no peer address is given; name at least one in peer_addrs, as HOST:PORT")
	}
	for _, addr := range p.PeerAddrs {
		if !isAddr(addr) {
			return Changed{}, kv.Errorf(kv.InvalidArgument, "peer address %q is no HOST:PORT; write it as 10.0.0.4:2380", addr)
		}
	}
	// As a learner: a voter that does not run yet would only count as failed.
	m, err := a.cluster.AddMember(ctx, kv.Member{Name: p.Name, PeerAddrs: p.PeerAddrs, Learner: true})
	return Changed{fromMember(&m)}, err
}

// isAddr reports whether addr is a host that is named, and a port.
func isAddr(addr string) bool {
	host, port, ok := cutPort(addr)
	n, err := strconv.ParseUint(port, 10, 16)
	return ok && err == nil && n > 0 && host != "" && !strings.ContainsAny(host, "/ ,=")
}

func cutPort(addr string) (host, port string, ok bool) {
	at := strings.LastIndexByte(addr, ':')
	if at < 0 {
		return "", "", false
	}
	host, port = addr[:at], addr[at+1:]
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	return host, port, bracketed || !strings.Contains(host, ":")
}

func (a *api) promote(ctx context.Context, which *Which) (Changed, error) {
	m, err := a.find(ctx, which.Member)
	if err != nil {
		return Changed{}, err
	}
	if err := a.cluster.PromoteMember(ctx, m.ID); err != nil {
		return Changed{}, err
	}
	m.Learner = false
	return Changed{fromMember(&m)}, nil
}

func (a *api) remove(ctx context.Context, which *Which) (Changed, error) {
	m, err := a.find(ctx, which.Member)
	if err != nil {
		return Changed{}, err
	}
	return Changed{fromMember(&m)}, kv.Retire(ctx, a.cluster, m.ID)
}

// moveLeader answers with who leads now.
func (a *api) moveLeader(ctx context.Context, which *Which) (Changed, error) {
	var to kv.Member
	if which.Member != "" {
		var err error
		if to, err = a.find(ctx, which.Member); err != nil {
			return Changed{}, err
		}
		if to.Learner {
			return Changed{}, kv.WithNext(kv.Errorf(kv.FailedPrecondition, "%s does not vote, so it cannot lead", which.Member), "promote it first, or name a voter")
		}
	}
	if err := a.cluster.MoveLeader(ctx, to.ID); err != nil {
		return Changed{}, err
	}
	if leader := a.cluster.Status().Leader; leader != 0 { // else it moves on already
		var err error
		if to, err = a.find(ctx, leader.String()); err != nil {
			return Changed{}, err
		}
	}
	return Changed{fromMember(&to)}, nil
}

func (a *api) leave(ctx context.Context, which *Which) (Changed, error) {
	overseer, err := offers[kv.Overseer](a.cluster)
	if err != nil {
		return Changed{}, err
	}
	self := a.cluster.Status().Member
	m, err := a.find(ctx, self.String())
	if err != nil {
		return Changed{}, err
	}
	if which.Member != "" && which.Member != m.Name && which.Member != self.String() {
		return Changed{}, kv.WithNext(kv.Errorf(kv.FailedPrecondition, "this member is %s (%v), not %s; nothing was done", m.Name, self, which.Member), "ask the member that should leave, at its own address")
	}
	return Changed{fromMember(&m)}, overseer.Leave(ctx)
}

// find is the member with a name or id.
func (a *api) find(ctx context.Context, text string) (found kv.Member, err error) {
	if text == "" {
		return found, kv.Errorf(kv.InvalidArgument, "no member is named; give its name or id in member")
	}
	all, err := a.cluster.Members(ctx)
	if err != nil {
		return found, err
	}
	var ids []string
	for _, m := range all {
		if m.ID.String() == strings.ToLower(text) {
			return m, nil
		}
		if m.Name == text {
			found = m
			ids = append(ids, m.ID.String())
		}
	}
	switch len(ids) {
	case 0:
		return found, fmt.Errorf("%w: %s", kv.ErrMemberNotFound, text)
	case 1:
		return found, nil
	}
	return kv.Member{}, kv.WithNext(kv.Errorf(kv.FailedPrecondition, "%d members are named %s", len(ids), text), "name it by its id: "+strings.Join(ids, ", "))
}
