package kubeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"
)

// object is a JSON object: one of Kubernetes's, a list of them, or a status.
type object map[string]any

// at returns what is under a path of names, or nil.
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (o object) text(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) name() string { return o.text("metadata", "name") }

// version is the revision at which the object was last written, or a list read.
func (o object) version() string { return o.text("metadata", "resourceVersion") }

// set sets what is under a path of names, all but the last of which are there.
func (o object) set(value any, path ...string) {
	last := len(path) - 1
	o.at(path[:last]...).(map[string]any)[path[last]] = value
}

func (o object) items() []object {
	list, _ := o["items"].([]any)
	out := make([]object, len(list))
	for i, item := range list {
		out[i] = item.(map[string]any)
	}
	return out
}

// number is a version as a number.
func number(version string) int64 {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// call is a request.
type call struct {
	method, path string
	kind         string // content type, JSON's if empty
	body         any    // as JSON; nothing if nil
}

// open makes a request and returns the answer, to be closed.
func (s *server) open(ctx context.Context, c call) (*http.Response, error) {
	var body io.Reader
	if c.body != nil {
		text, err := json.Marshal(c.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, c.method, "https://"+s.addr+c.path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if c.kind == "" {
		c.kind = "application/json"
	}
	r.Header.Set("Content-Type", c.kind)
	return s.client.Do(r)
}

// ask makes a request and reads the answer.
func (s *server) ask(ctx context.Context, c call) (int, object, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := s.open(ctx, c)
	if err != nil {
		return 0, nil, err
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return 0, nil, err
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return answer.StatusCode, nil, fmt.Errorf("status %d: %.500s", answer.StatusCode, text)
	}
	return answer.StatusCode, o, nil
}

// api is a server as a test asks it.
type api struct {
	*server
	t *testing.T
}

// do makes a request, which is answered with one of the codes.
func (a api) do(c call, codes ...int) object {
	a.t.Helper()
	status, o, err := a.ask(a.t.Context(), c)
	if err != nil {
		a.t.Fatalf("%s %s at server %s: %v", c.method, c.path, a.name, err)
	}
	if !slices.Contains(codes, status) {
		a.t.Fatalf("%s %s at server %s: status %d, not %v: %.1000v", c.method, c.path, a.name, status, codes, o)
	}
	return o
}

func (a api) get(path string) object {
	a.t.Helper()
	return a.do(call{method: http.MethodGet, path: path}, http.StatusOK)
}

func (a api) create(path string, o object) object {
	a.t.Helper()
	return a.do(call{method: http.MethodPost, path: path, body: o}, http.StatusCreated)
}

func (a api) update(path string, o object) object {
	a.t.Helper()
	return a.do(call{method: http.MethodPut, path: path, body: o}, http.StatusOK)
}

func (a api) remove(path string) object {
	a.t.Helper()
	return a.do(call{method: http.MethodDelete, path: path}, http.StatusOK)
}

// Kinds of patches.
const (
	jsonPatch      = "application/json-patch+json"
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
	applyPatch     = "application/apply-patch+yaml"
)

func (a api) patch(kind, path string, body any) object {
	a.t.Helper()
	return a.do(call{method: http.MethodPatch, path: path, kind: kind, body: body}, http.StatusOK, http.StatusCreated)
}

// fails makes a request that is refused with a status and a reason.
func (a api) fails(code int, reason string, c call) object {
	a.t.Helper()
	o := a.do(c, code)
	if o.text("reason") != reason {
		a.t.Errorf("%s %s at server %s: reason %q, not %q: %s", c.method, c.path, a.name, o.text("reason"), reason, o.text("message"))
	}
	return o
}

// namespace makes a namespace and returns its path.
func (a api) namespace(name string) string {
	a.t.Helper()
	a.create("/api/v1/namespaces", object{"metadata": object{"name": name}})
	return "/api/v1/namespaces/" + name
}

// configMap is an object without any meaning.
func configMap(name string, data map[string]string, labels ...string) object {
	o := object{"metadata": object{"name": name, "labels": object{}}, "data": data}
	for i := 0; i < len(labels); i += 2 {
		o["metadata"].(object)["labels"].(object)[labels[i]] = labels[i+1]
	}
	return o
}
