package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/concord-kv/concord/compat/servers"
)

// patience bounds one request on a busy machine.
const patience = time.Minute

// reply is an answer in a form that can be compared.
type reply struct {
	Code  int
	Type  string
	CORS  []string
	Lines []any // JSON, or text where it is none
}

// pair is etcd and Concord.
type pair struct {
	t     *testing.T
	bases [2]string
	count int
	// token is sent as Authorization, and differs.
	tokens [2]string
	// ids are what ${id} stands for in bodies.
	ids [2]string
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, bases: [...]string{
		"http://" + servers.Etcd(t, 1).Endpoints[0], "http://" + servers.Concord(t, 1).Endpoints[0],
	}}
	t.Logf("etcd at %s, Concord at %s", p.bases[0], p.bases[1])
	return p
}

// request is what is sent to both.
type request struct {
	method, path, body string
	// ours, when not empty, is the path at Concord.
	ours string
	// lines ends a stream after that many.
	lines int
}

// send sends r to one of both.
func (p *pair) send(i int, r request) (reply, []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if i == 1 && r.ours != "" {
		r.path = r.ours
	}
	body := strings.ReplaceAll(r.body, "${id}", p.ids[i])
	req, err := http.NewRequestWithContext(ctx, r.method, p.bases[i]+r.path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.tokens[i] != "" {
		req.Header.Set("Authorization", p.tokens[i])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s of %s: %v after %s", r.method, r.path, p.bases[i], err, r.body)
	}
	defer resp.Body.Close()
	text, err := read(resp.Body, r.lines)
	if err != nil {
		p.t.Fatalf("%s %s %s of %s: %v after %q", r.method, r.path, r.body, p.bases[i], err, text)
	}
	return reply{
		Code: resp.StatusCode, Type: resp.Header.Get("Content-Type"),
		CORS:  slices.Concat(resp.Header.Values("Access-Control-Allow-Origin"), resp.Header.Values("Access-Control-Allow-Headers"), resp.Header.Values("Access-Control-Allow-Methods")),
		Lines: parse(text),
	}, text
}

// read reads all of an answer, or the first lines of it.
func read(r io.Reader, lines int) ([]byte, error) {
	if lines == 0 {
		return io.ReadAll(r)
	}
	var text []byte
	for b := make([]byte, 1); bytes.Count(text, []byte("\n")) < lines; text = append(text, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			return text, err
		}
	}
	return text, nil
}

// parse takes a text apart into lines of JSON.
func parse(text []byte) []any {
	var out []any
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var v any
		if json.Unmarshal(line, &v) == nil {
			out = append(out, scrub(v))
		} else {
			out = append(out, string(line))
		}
	}
	return out
}

// differ are fields that differ between clusters and moments, by their names.
var differ = []string{
	"cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "leader_id",
	"dbSize", "hash", "token", "blob",
}

// scrub hides what differs, and leaves out what may be nothing: the quota, which
// Concord has none of, what is in use, and what is left of a short stream.
func scrub(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = scrub(v[i])
		}
	case map[string]any:
		delete(v, "dbSizeQuota")
		delete(v, "dbSizeInUse")
		delete(v, "remaining_bytes")
		for name, value := range v {
			v[name] = scrub(value)
			_, text := value.(string)
			if slices.Contains(differ, name) && (text || name == "hash") {
				v[name] = "any"
			}
		}
		maskLeader(v)
	}
	return v
}

// maskLeader hides members but for their number, and what is left of a lease.
func maskLeader(v map[string]any) {
	if _, ok := v["leader"].(string); ok {
		v["leader"] = "any"
	}
	if all, ok := v["members"].([]any); ok {
		v["members"] = len(all)
	}
	if _, ok := v["member"]; ok {
		v["member"] = "any"
	}
	if _, ok := v["grantedTTL"]; ok {
		v["TTL"] = "any"
	}
}

// compare sends r to both and compares the answers. It returns the texts.
func (p *pair) compare(r request) (texts [2][]byte) {
	p.t.Helper()
	if r.method == "" {
		r.method = http.MethodPost
	}
	var replies [2]reply
	for i := range p.bases {
		replies[i], texts[i] = p.send(i, r)
	}
	p.count++
	if diff := cmp.Diff(replies[0], replies[1]); diff != "" {
		p.t.Errorf("%s %s %.300s (- etcd, + concord):\n%s", r.method, r.path, r.body, diff)
	}
	return texts
}
