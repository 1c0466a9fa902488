package gateway

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// TestWatch compares the lines of watches, with writes while they run.
func TestWatch(t *testing.T) {
	p := newPair(t)
	p.compare(request{path: "/v3/kv/put", body: `{"key":"` + a + `","value":"MQ=="}`})
	for _, r := range []request{
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `","start_revision":"2"}}`, lines: 2},
		{path: "/v3/watch", body: `{"createRequest":{"key":"` + a + `","startRevision":2,"prevKv":true,"watchId":"7"}}`, lines: 2},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `","filters":["NOPUT"]}}`, lines: 1},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `","watch_id":"3"}} {"create_request":{"key":"` + b + `","watch_id":"3"}}`, lines: 2},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `"}} {"cancel_request":{"watch_id":"0"}}`, lines: 2},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `","start_revision":"-5"}}`, lines: 1},
		{method: http.MethodGet, path: "/v3/watch"},
	} {
		p.compare(r)
	}
	t.Logf("%d requests", p.count)
}

// TestSnapshot compares the form of a stream of blobs.
func TestSnapshot(t *testing.T) {
	p := newPair(t)
	p.compare(request{path: "/v3/maintenance/snapshot", body: `{}`, lines: 1})
}

// socket is a websocket to one of both.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

func (p *pair) dial(i int, path string, protocols []string, header http.Header) (socket, *http.Response) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	dialer := websocket.Dialer{Subprotocols: protocols}
	conn, resp, err := dialer.DialContext(ctx, strings.Replace(p.bases[i], "http:", "ws:", 1)+path, header)
	if err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return socket{p.t, conn}, resp
}

func (s socket) send(text string) {
	s.t.Helper()
	if err := s.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// receive returns the kind and the content of the next message.
func (s socket) receive() any {
	s.t.Helper()
	kind, text, err := s.conn.ReadMessage()
	if err != nil {
		s.t.Fatal(err)
	}
	return []any{kind, parse(text)}
}

// TestSockets compares websockets: a watch that lives on while keys are written
// and more is asked, and an error. Etcd answers nothing but streams there.
func TestSockets(t *testing.T) {
	p := newPair(t)
	var got [2][]any
	for i := range p.bases {
		s, resp := p.dial(i, "/v3/watch", []string{"Bearer", "token"}, http.Header{"Origin": {"http://elsewhere"}})
		add := func(v any) { got[i] = append(got[i], v) }
		add(resp.Header.Get("Sec-Websocket-Protocol"))
		add(resp.Header.Values("Access-Control-Allow-Origin"))
		s.send(`{"create_request":{"key":"` + a + `","watch_id":"1"}}`)
		add(s.receive())
		p.send(i, request{method: http.MethodPost, path: "/v3/kv/put", body: `{"key":"` + a + `","value":"MQ=="}`})
		add(s.receive())
		// In two fragments, with a ping between them.
		w, err := s.conn.NextWriter(websocket.TextMessage)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{`{"create_requ`, `est":{"key":"` + b + `","watch_id":"2"}}`} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
			if err := s.conn.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		add(s.receive())
		p.send(i, request{method: http.MethodPost, path: "/v3/kv/deleterange", body: `{"key":"` + a + `"}`})
		add(s.receive())
		s.send(`{"create_request":{"key":5}}`)
		bad, _ := p.dial(i, "/v3/nothing", nil, nil)
		add(bad.receive())
	}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Errorf("- etcd, + concord:\n%s", diff)
	}
}
