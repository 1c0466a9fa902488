package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// fake is a cluster of n1, which leads and is asked, n2 and the learner n3; two
// members are named twin. It keeps what it was asked to do.
type fake struct {
	kv.Cluster
	kv.Overseer
	kv.Pilot
	done  []string
	err   error // of changes
	pilot kv.Autopilot
}

func (f *fake) did(format string, args ...any) error {
	f.done = append(f.done, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) Status() kv.Status { return kv.Status{Member: 0xa1, Leader: 0xa1} }

func (f *fake) Members(context.Context) ([]kv.Member, error) {
	return []kv.Member{
		{ID: 0xa1, Name: "n1", PeerAddrs: []string{"h1:1"}, ClientAddrs: []string{"h1:2"}}, {ID: 0xa2, Name: "n2"},
		{ID: 0xa3, Name: "n3", Learner: true}, {ID: 0xa4, Name: "twin"}, {ID: 0xa5, Name: "twin"},
	}, nil
}

func (f *fake) Overview(context.Context) (kv.Overview, error) {
	o := kv.Overview{Cluster: 0xc, Asked: 0xa1, Leader: 0xa1, Term: 7, Alarms: []kv.Alarm{{Member: 0xa2, Type: kv.AlarmNoSpace}}}
	all, _ := f.Members(context.Background())
	for _, m := range all {
		o.Members = append(o.Members, kv.MemberOverview{Member: m, Connected: true, Report: &kv.Report{Status: kv.Status{Member: m.ID}}})
	}
	o.Members[0].Report = &kv.Report{
		Status: kv.Status{Member: 0xa1, Role: kv.LeaderRole, Term: 7, Committed: 12, Applied: 11, Revision: 5, Hash: 0xdeadbeefdeadbeef, Version: "1.2.3", MemoryBytes: 100},
		UpTime: time.Minute, LogWrite: 1500 * time.Microsecond, Resident: 1000, DiskFree: 2000, DiskFull: true,
	}
	o.Members[1] = kv.MemberOverview{Member: all[1], Err: "refused", Silent: 90 * time.Second, Lag: 3, Behind: 2 * time.Second, RoundTrip: 250 * time.Microsecond}
	return o, nil
}

func (f *fake) AddMember(_ context.Context, m kv.Member) (kv.Member, error) {
	m.ID = 0xb0
	return m, f.did("add %s %v learner=%t", m.Name, m.PeerAddrs, m.Learner)
}
func (f *fake) PromoteMember(_ context.Context, id kv.MemberID) error { return f.did("promote %v", id) }
func (f *fake) RemoveMember(_ context.Context, id kv.MemberID) error  { return f.did("remove %v", id) }
func (f *fake) MoveLeader(_ context.Context, to kv.MemberID) error    { return f.did("move to %v", to) }
func (f *fake) Leave(context.Context) error                           { return f.did("leave") }
func (f *fake) Follow(context.Context) iter.Seq[kv.View]              { return nil }
func (f *fake) Autopilot(context.Context) (kv.AutopilotStatus, error) {
	return kv.AutopilotStatus{Autopilot: f.pilot, Leader: 0xa1, Judgement: []string{"well"}}, nil
}
func (f *fake) SetAutopilot(_ context.Context, a kv.Autopilot) error {
	f.pilot = a
	return f.did("set %v", a)
}

// ask serves one request, of a method and a path.
func ask(t *testing.T, c kv.Cluster, request, body string) *httptest.ResponseRecorder {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	mux, all := http.NewServeMux(), append(Routes(c), TokenRoutes(storeOf(c))...)
	for _, r := range all {
		mux.HandleFunc(r.Method+" "+r.Path, r.Serve)
	}
	mux.HandleFunc(Prefix, NoRoute(all))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	if !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s %s: no JSON: %s", method, path, w.Body)
	}
	return w
}

func TestChanges(t *testing.T) {
	for _, c := range []struct {
		path, body string
		status     int
		done, want string
	}{
		{"add", `{"peer_addrs":["h:1"],"name":"n9"}`, 200, "add n9 [h:1] learner=true", `{"member":{"id":"b0","name":"n9","learner":true,"peer_addrs":["h:1"],"client_addrs":[]}}`},
		{"add", `{"peer_addrs":["[::1]:2380","10.0.0.4:2380"]}`, 200, "add  [[::1]:2380 10.0.0.4:2380] learner=true", ""},
		{"add", `{}`, 400, "", "no peer address"},
		{"add", `{"peer_addrs":["h"]}`, 400, "", "is no HOST:PORT"},
		{"add", `{"peer_addrs":["http://h:1"]}`, 400, "", "is no HOST:PORT"},
		{"add", `{"peer_addrs":["::1:1"]}`, 400, "", "is no HOST:PORT"},
		{"add", `{"peer_addrs":["h:0"]}`, 400, "", "is no HOST:PORT"},
		{"add", `{"peer_addrs":[":1"]}`, 400, "", "is no HOST:PORT"},
		{"promote", `{"member":"n3"}`, 200, "promote a3", `"learner":false`},
		{"promote", `{"member":"A3"}`, 200, "promote a3", `"id":"a3"`},
		{"promote", `{"member":"nx"}`, 404, "", `"message":"member not found: nx","next":"'concord cluster members'`},
		{"promote", `{"member":"twin"}`, 409, "", `"next":"name it by its id: a4, a5"`},
		{"promote", `{}`, 400, "", "no member is named"},
		{"promote", ``, 400, "", "no member is named"},
		{"promote", `{"member":7}`, 400, "", "the body is not the JSON"},
		{"promote", `{"member":"n3"} {}`, 400, "", "there is something behind it"},
		{"promote", `{"id":"a3"}`, 400, "", "unknown field"},
		{"remove", `{"member":"a4"}`, 200, "remove a4", `"name":"twin"`},
		{"remove", `{"member":"n1"}`, 200, "move to 0,remove a1", `"name":"n1"`},
		{"move-leader", `{"member":"n2"}`, 200, "move to a2", `"name":"n1"`},
		{"move-leader", ``, 200, "move to 0", `"name":"n1"`},
		{"move-leader", `{"member":"n3"}`, 409, "", "does not vote"},
		{"leave", ``, 200, "leave", `"name":"n1"`},
		{"leave", `{"member":"a1"}`, 200, "leave", ""},
		{"leave", `{"member":"n2"}`, 409, "", "this member is n1 (a1), not n2; nothing was done"},
	} {
		f := new(fake)
		w := ask(t, f, "POST /v1/cluster/"+c.path, c.body)
		if w.Code != c.status || strings.Join(f.done, ",") != c.done || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, did %q", c.path, c.body, w.Code, w.Body, f.done)
		}
	}
}

// TestErrors sends each kind of error out and takes it in again.
func TestErrors(t *testing.T) {
	for code, status := range statuses {
		f := &fake{err: kv.WithNext(&kv.Error{Code: code, Message: "so"}, "then")}
		w := ask(t, f, "POST /v1/cluster/leave", "")
		var e Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != status || w.Code < 400 {
			t.Errorf("%v: %d %s %v", code, w.Code, w.Body, err)
		}
		if err := e.Err(); kv.CodeOf(err) != code || err.Error() != "so" || kv.NextStep(err) != "then" {
			t.Errorf("%v came back as %v: %v", code, kv.CodeOf(err), err)
		}
		if (w.Header().Get("WWW-Authenticate") != "") != (status == http.StatusUnauthorized) {
			t.Errorf("%v: %v", code, w.Header())
		}
	}
	if len(statuses) != int(kv.Unsupported)+1 {
		t.Errorf("%d codes have a status", len(statuses))
	}
	for _, n := range nexts {
		if e, _ := ErrorOf(fmt.Errorf("asked: %w", n.is)); e.Next != n.next || e.Message == "" {
			t.Errorf("%v: %+v", n.is, e)
		}
	}
	if e, status := ErrorOf(errors.New("odd")); status != 500 || e.Code != "internal" {
		t.Errorf("%d %+v", status, e)
	}
	if (&Error{Code: "from the future", Message: "m"}).Err().Error() != "m" {
		t.Error("an unknown code lost its message")
	}
}

func TestStatus(t *testing.T) {
	w := ask(t, new(fake), "GET /v1/cluster/status", "")
	var s Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	if s.Cluster != "c" || s.Leader != "a1" || s.Asked != "a1" || s.Term != 7 || s.Health.Voters != 4 || s.Health.VotersUp != 3 ||
		!s.Health.Serving || s.Alarms[0] != (Alarm{"a2", "NOSPACE"}) || len(s.Members) != 5 || len(s.Health.Notes) == 0 {
		t.Errorf("%s", w.Body)
	}
	want := Said{
		Role: "leader", Term: 7, Committed: 12, Applied: 11, Revision: 5, Hash: "deadbeefdeadbeef", Version: "1.2.3", Up: 60_000,
		Disk: Disk{WriteP99Micros: 1500, FreeBytes: 2000, Full: true}, Memory: Memory{StateBytes: 100, ResidentBytes: 1000},
	}
	none := Times{Cells: []Cell{}}
	want.Load, want.Wrong = Load{LogWrites: none, Reads: Calls{0, none}, Writes: Calls{0, none}}, []Condition{}
	if s.Members[0].Said == nil || !reflect.DeepEqual(*s.Members[0].Said, want) || !s.Members[0].Answered {
		t.Errorf("%+v", s.Members[0].Said)
	}
	gone := s.Members[1]
	if gone.Answered || gone.Said != nil || gone.Error != "refused" || gone.SilentMillis != 90_000 || gone.LagEntries != 3 || gone.LagMillis != 2000 || gone.RoundTripMicros != 250 {
		t.Errorf("%+v", gone)
	}
}

func TestMembersAndAutopilot(t *testing.T) {
	f := &fake{pilot: kv.Autopilot{Enabled: true, Voters: 3, DeadAfter: time.Minute}}
	if w := ask(t, f, "GET /v1/cluster/members", ""); !strings.HasPrefix(w.Body.String(), `{"members":[{"id":"a1","name":"n1","learner":false,"peer_addrs":["h1:1"],"client_addrs":["h1:2"]},`) {
		t.Errorf("%s", w.Body)
	}
	if w := ask(t, f, "GET /v1/cluster/autopilot", ""); w.Body.String() != `{"enabled":true,"voters":3,"dead_after_ms":60000,"leader":"a1","judgement":["well"]}`+"\n" {
		t.Errorf("%s", w.Body)
	}
	if w := ask(t, f, "PUT /v1/cluster/autopilot", `{"voters":5}`); w.Code != 200 || f.pilot != (kv.Autopilot{Enabled: true, Voters: 5, DeadAfter: time.Minute}) {
		t.Errorf("%s, %+v", w.Body, f.pilot)
	}
	if w := ask(t, f, "PUT /v1/cluster/autopilot", `{"enabled":false,"dead_after_ms":1000}`); w.Code != 200 || f.pilot != (kv.Autopilot{Voters: 5, DeadAfter: time.Second}) {
		t.Errorf("%s, %+v", w.Body, f.pilot)
	}
	f.err = kv.ErrNoLeader
	if w := ask(t, f, "PUT /v1/cluster/autopilot", `{}`); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestLittle asks a cluster that offers the least.
func TestLittle(t *testing.T) {
	for _, r := range []string{"GET status", "GET autopilot", "PUT autopilot", "POST leave"} {
		method, path, _ := strings.Cut(r, " ")
		if w := ask(t, struct{ kv.Cluster }{new(fake)}, method+" /v1/cluster/"+path, ""); w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", r, w.Code, w.Body)
		}
	}
}

func TestNoRoute(t *testing.T) {
	w := ask(t, new(fake), "DELETE /v1/cluster/autopilot", "")
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, PUT" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := ask(t, new(fake), "GET /v1/cluster", ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "GET /v1/cluster/status") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestRights has a row for each route about the cluster: who may only look may not
// change.
func TestRights(t *testing.T) {
	for _, r := range Routes(new(fake)) {
		if want := r.Method != http.MethodGet; (r.Right == kv.ManageCluster) != want || !want && r.Right != kv.AnyUser {
			t.Errorf("%s %s asks for %v", r.Method, r.Path, r.Right)
		}
	}
}

// TestDescription compares the routes, and the fields of answers, with what
// api/openapi.yaml says.
func TestDescription(t *testing.T) {
	data, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var described, served []string
	path := ""
	for line := range strings.Lines(string(data)) {
		if m := regexp.MustCompile(`^  (/\S+):$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			path = m[1]
		} else if m := regexp.MustCompile(`^    (get|put|post|delete):$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			described = append(described, strings.ToUpper(m[1])+" "+path)
		}
	}
	for _, r := range slices.Concat(Routes(new(fake)), TokenRoutes(nil), LogRoutes(nil, nil)) {
		served = append(served, r.Method+" "+r.Path)
	}
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("described: %q\nserved: %q", described, served)
	}
	for _, path := range []string{"cluster/status", "cluster/members", "cluster/autopilot", "auth/tokens"} {
		w := ask(t, &guarded{}, "GET /v1/"+path, "")
		for _, field := range regexp.MustCompile(`"([a-z_0-9]+)":`).FindAllStringSubmatch(w.Body.String(), -1) {
			if !strings.Contains(string(data), " "+field[1]+":") {
				t.Errorf("the field %s of %s is not described", field[1], path)
			}
		}
	}
}

// FuzzRead takes anything as a body.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"member":"n1"}`, `{"member":"n1"}x`, "[", `{"member":{}}`, "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var which Which
		if err := read(strings.NewReader(body), &which); err != nil && kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%q: %v", body, err)
		}
	})
}
