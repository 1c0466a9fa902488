package restapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// guarded is a fake cluster that is a store with users and tokens, too. It knows
// the token web of the secret that follows, one without a name, and the users
// alice and web.
type guarded struct {
	fake
	kv.Store
	roster
	made  []kv.NewAccessToken
	asked kv.Question
	gone  []kv.TokenID
	deny  bool
}

type roster interface{ kv.Users }

var (
	webSecret  = kv.NewSecretToken()
	webID, _   = kv.ParseSecretToken(webSecret)
	otherID, _ = kv.ParseSecretToken(kv.NewSecretToken())
)

// storeOf is the store that a fake is, if it is one.
func storeOf(c kv.Cluster) kv.Store {
	s, _ := c.(kv.Store)
	return s
}

func (g *guarded) CreateToken(_ context.Context, n kv.NewAccessToken) (kv.AccessToken, kv.Header, error) {
	g.made = append(g.made, n)
	if n.Name == "web" {
		return kv.AccessToken{}, kv.Header{}, kv.ErrTokenExists
	}
	t := kv.AccessToken{ID: n.ID, Name: n.Name, Roles: n.Roles, Permissions: n.Permissions, Created: 1000}
	if n.TTL != 0 {
		t.Expires = t.Created.Add(n.TTL)
	}
	return t, kv.Header{Time: 1000}, nil
}

func (g *guarded) AccessTokens(context.Context) ([]kv.AccessToken, kv.Header, error) {
	if g.deny {
		return nil, kv.Header{}, kv.ErrPermissionDenied
	}
	return []kv.AccessToken{
		{ID: webID, Name: "web", Roles: []string{"r"}, Created: 1000, Expires: 9000, LastUsed: time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC), Permissions: []kv.Permission{
			{Access: kv.ReadWriteAccess, Key: []byte("a/"), End: []byte("a0")}, {Access: kv.ReadAccess, Key: []byte{0xff}},
		}},
		{ID: otherID},
	}, kv.Header{Revision: 7, Time: 4000}, nil
}

func (g *guarded) RevokeAccessToken(_ context.Context, id kv.TokenID) (kv.Header, error) {
	g.gone = append(g.gone, id)
	return kv.Header{}, nil
}

func (g *guarded) Can(_ context.Context, q kv.Question) (v kv.Verdict, err error) {
	g.asked = q
	switch {
	case q.Access == kv.WriteAccess:
		v.Because, v.Missing, v.MissingAccess = kv.BecauseNoRule, []byte("b"), kv.WriteAccess
	case q.User == "nobody":
		v.Because = kv.BecauseUnknown
	default:
		v.Allowed, v.Because = true, kv.BecauseOfRules
		v.Rules = []kv.Rule{{Role: "r", Permission: kv.Permission{Key: []byte("a")}}}
	}
	return v, nil
}

func (g *guarded) User(_ context.Context, name string) (kv.User, kv.Header, error) {
	if name != "alice" && name != "web" {
		return kv.User{}, kv.Header{}, kv.ErrUserNotFound
	}
	return kv.User{Name: name}, kv.Header{}, nil
}

func hex256(id kv.TokenID) string { return fmt.Sprintf("%x", id[:]) }

func TestListTokens(t *testing.T) {
	w := ask(t, &guarded{}, "GET /v1/auth/tokens", "")
	want := `{"tokens":[{"id":"` + webID.String() + `","sha256":"` + hex256(webID) + `","name":"web","roles":["r"],"permissions":[{"access":"readwrite","key":"a/","end":"a0"},{"access":"read","key_base64":"/w=="}],` +
		`"age_ms":3000,"left_ms":5000,"last_used":"2026-11-23T19:00:00Z"},{"id":"` + otherID.String() + `","sha256":"` + hex256(otherID) + `","name":"","roles":[],"permissions":[],"age_ms":4000,"left_ms":null,"last_used":""}],"revision":7,"time_ms":4000}` + "\n"
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
	}
	if strings.Contains(w.Body.String(), kv.TokenPrefix) {
		t.Error("there is a secret in the list")
	}
}

func TestCreateToken(t *testing.T) {
	sum := fmt.Sprintf("%x", webID[:])
	for _, c := range []struct {
		body   string
		status int
		made   string // of the permissions and the TTL
		want   string
	}{
		{`{"name":"n","permissions":[{"access":"read","prefix":"a/"},{"access":"write","key":"k"}],"ttl_ms":1500,"sha256":"` + sum + `"}`, 200,
			`[{read [97 47] [97 48]} {write [107] []}] 1.5s`, `"left_ms":1500`},
		{`{"permissions":[{"access":"readwrite","key":"a","end":"b"},{"access":"read","key_base64":"/w=="},{"access":"read","prefix":""}]}`, 200,
			`[{readwrite [97] [98]} {read [255] []} {read [0] [0]}] 0s`, `"left_ms":null`},
		{`{}`, 200, `[] 0s`, `"secret":"sk_concord_`},
		{`{"name":"web"}`, 409, `[] 0s`, `"next":"choose another name`},
		{`{"sha256":"` + webSecret + `"}`, 400, "", "that is the secret"},
		{`{"sha256":"abc"}`, 400, "", "64 hexadecimal digits"},
		{`{"sha256":"` + sum + `00"}`, 400, "", "64 hexadecimal digits"},
		{`{"sha256":"` + strings.Repeat("x", 64) + `"}`, 400, "", "64 hexadecimal digits"},
		{`{"ttl_ms":-1}`, 400, "", "ttl_ms is -1"},
		{`{"ttl_ms":9223372036854775807}`, 400, "", "ttl_ms"},
		{`{"permissions":[{"access":"read"}]}`, 400, "", "no key is named"},
		{`{"permissions":[{"access":"all","key":"k"}]}`, 400, "", "give read, write or readwrite"},
		{`{"permissions":[{"access":"read","key":"k","prefix":"k"}]}`, 400, "", "excludes"},
		{`{"permissions":[{"access":"read","key":"k","key_base64":"aw=="}]}`, 400, "", "exclude each other"},
		{`{"permissions":[{"access":"read","key_base64":"?"}]}`, 400, "", "no base64"},
		{`{"permissions":[{"access":"read","key":"k","end_base64":"?"}]}`, 400, "", "no base64"},
		{`{"permissions":[{"access":"read","prefix_base64":"?"}]}`, 400, "", "no base64"},
	} {
		g := &guarded{}
		w := ask(t, g, "POST /v1/auth/tokens", c.body)
		made := ""
		for _, m := range g.made {
			made = fmt.Sprint(m.Permissions, " ", m.TTL)
		}
		if w.Code != c.status || made != c.made || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, made %s", c.body, w.Code, w.Body, made)
		}
		if given := strings.Contains(c.body, `"sha256":"`+sum+`"`); given && strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: there is a secret: %s", c.body, w.Body)
		}
	}
}

// TestMadeSecret is that of the token that was made.
func TestMadeSecret(t *testing.T) {
	g := &guarded{}
	var made MadeToken
	if err := json.Unmarshal(ask(t, g, "POST /v1/auth/tokens", "{}").Body.Bytes(), &made); err != nil {
		t.Fatal(err)
	}
	id, err := kv.ParseSecretToken(made.Secret)
	if err != nil || id != g.made[0].ID || made.Token.ID != id.String() {
		t.Errorf("%+v is the secret of %v: %v", made, id, err)
	}
}

func TestRevokeToken(t *testing.T) {
	for name, want := range map[string]struct {
		status int
		id     *kv.TokenID
		text   string
	}{
		"web":                             {200, &webID, `"name":"web"`},
		webID.String():                    {200, &webID, ""},
		otherID.String():                  {200, &otherID, `"name":""`},
		strings.ToUpper(otherID.String()): {200, &otherID, ""},
		fmt.Sprintf("%x", webID[:]):       {200, &webID, ""},
		"nosuch":                          {404, nil, "concord token ls"},
		webSecret:                         {400, nil, "that is the secret"},
		kv.TokenPrefix:                    {400, nil, "that is the secret"},
		fmt.Sprintf("%x", webID[:]) + "0": {404, nil, ""},
		strings.ReplaceAll(webID.String(), "", " "): {404, nil, ""},
	} {
		g := &guarded{}
		w := ask(t, g, "DELETE /v1/auth/tokens/"+strings.ReplaceAll(name, " ", "%20"), "")
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.text) || want.id == nil && g.gone != nil || want.id != nil && !slices.Equal(g.gone, []kv.TokenID{*want.id}) {
			t.Errorf("%s: %d %s, gone %v", name, w.Code, w.Body, g.gone)
		}
		if strings.Contains(w.Body.String(), webSecret) {
			t.Errorf("the secret comes back: %s", w.Body)
		}
	}
	if w := ask(t, &guarded{}, "PUT /v1/auth/tokens/web", ""); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "DELETE" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestCan(t *testing.T) {
	for _, c := range []struct {
		body   string
		deny   bool
		status int
		asked  string
		want   string
	}{
		{`{"who":"alice","access":"read","key":"a"}`, false, 200, "alice", `{"allowed":true,"because":"permissions","rules":[{"role":"r","access":"read","key":"a"}],"missing":null,"revision":0,"time_ms":0}`},
		{`{"who":"nobody","access":"read","key":"a"}`, false, 200, "nobody", `{"allowed":false,"because":"unknown user or token","rules":[],"missing":null,"revision":0,"time_ms":0}`},
		{`{"who":"alice","access":"write","prefix":"a"}`, false, 200, "alice", `"missing":{"access":"write","key":"b"}`},
		{`{"who":"web","access":"read","key":"a"}`, false, 400, "", `"next":"write user:web or token:web"`},
		{`{"who":"user:web","access":"read","key":"a"}`, false, 200, "web", ""},
		{`{"who":"token:web","access":"read","key":"a"}`, false, 200, webID.String(), ""},
		{`{"who":"` + otherID.String() + `","access":"readwrite","key":"a"}`, false, 200, otherID.String(), ""},
		{`{"who":"token:nosuch","access":"read","key":"a"}`, false, 404, "", "not_found"},
		{`{"who":"token:` + strings.Repeat("ab", 32) + `","access":"read","key":"a"}`, false, 200, strings.Repeat("ab", 8), ""},
		{`{"who":"` + webSecret + `","access":"read","key":"a"}`, false, 400, "", "that is the secret"},
		{`{"who":"alice","access":"read","key":"a"}`, true, 200, "alice", ""},
		{`{"who":"token:web","access":"read","key":"a"}`, true, 403, "", ""},
		{`{"who":"","access":"read","key":"a"}`, false, 400, "", "nobody is named"},
		{`{"who":"alice","access":"look","key":"a"}`, false, 400, "", "read, write or readwrite"},
		{`{"who":"alice","access":"read"}`, false, 400, "", "no key is named"},
	} {
		g := &guarded{deny: c.deny}
		w := ask(t, g, "POST /v1/auth/can", c.body)
		asked := g.asked.User
		if g.asked.Token != (kv.TokenID{}) {
			asked += g.asked.Token.String()
		}
		if w.Code != c.status || asked != c.asked || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, asked for %q", c.body, w.Code, w.Body, asked)
		}
	}
}

// TestNoTokens asks a store that has none.
func TestNoTokens(t *testing.T) {
	for _, r := range []string{"GET /v1/auth/tokens", "POST /v1/auth/tokens", "DELETE /v1/auth/tokens/x", "POST /v1/auth/can"} {
		if w := ask(t, new(fake), r, ""); w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", r, w.Code, w.Body)
		}
	}
}

// TestTokenRights lets everybody ask about themselves, and those change tokens
// who may.
func TestTokenRights(t *testing.T) {
	want := map[string]kv.Right{
		"GET /v1/auth/tokens": kv.AnyUser, "POST /v1/auth/tokens": kv.ManageAuth, "DELETE /v1/auth/tokens/{name}": kv.ManageAuth, "POST /v1/auth/can": kv.AnyUser,
	}
	for _, r := range TokenRoutes(nil) {
		if right, ok := want[r.Method+" "+r.Path]; !ok || r.Right != right {
			t.Errorf("%s %s asks for %v", r.Method, r.Path, r.Right)
		}
		delete(want, r.Method+" "+r.Path)
	}
	if len(want) > 0 {
		t.Errorf("no routes for %v", want)
	}
}

// FuzzToken reads anything as a request for a token, and takes what it asks for.
func FuzzToken(f *testing.F) {
	f.Add(`{"name":"n","permissions":[{"access":"read","prefix":"a/"},{"access":"write","key":"k","end_base64":"/w=="}],"ttl_ms":1500}`)
	f.Add(`{"sha256":"` + strings.Repeat("0f", 32) + `","roles":["root"]}`)
	f.Fuzz(func(t *testing.T, body string) {
		var request NewToken
		if read(strings.NewReader(body), &request) != nil {
			return
		}
		g := &guarded{}
		answer, err := (&tokens{g}).create(t.Context(), &request)
		if err != nil && kv.CodeOf(err) != kv.InvalidArgument && request.Name != "web" {
			t.Errorf("%q: %v", body, err)
		}
		if err == nil && (len(answer.Token.Permissions) != len(request.Permissions) || (answer.Secret == "") != (request.SHA256 != "")) {
			t.Errorf("%q: made %+v", body, answer)
		}
	})
}
