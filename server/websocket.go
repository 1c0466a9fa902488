package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/websocket"
)

// isSocket reports whether r asks for a websocket (RFC 6455, section 4.1).
func isSocket(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

// hasToken reports whether a header that is a list has a word in it, whatever
// its case.
func hasToken(h http.Header, name, word string) bool {
	for _, line := range h.Values(name) {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), word) {
				return true
			}
		}
	}
	return false
}

// socketPiece is how much of a message is read at once.
const socketPiece = 4 << 10

// bearer is the websocket protocol that etcd's gateway speaks of: a client whose
// first protocol it is names its token as the second.
const bearer = "Bearer"

// serveSocket serves a websocket: what the client sends is the body of a POST,
// and each line of the answer is a message. As in etcd, which has it from
// grpc-websocket-proxy, the token is the second of the protocols, or a cookie.
func (g *gateway) serveSocket(w http.ResponseWriter, r *http.Request) {
	g.sockets.Add(1)
	defer g.sockets.Done()
	websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			if len(c.Protocol) > 0 && c.Protocol[0] == bearer {
				c.Protocol = c.Protocol[:1]
			} else {
				c.Protocol = nil
			}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			g.serveMessages(ws, r)
		},
	}.ServeHTTP(w, r)
}

// serveMessages serves one websocket until either side ends it.
func (g *gateway) serveMessages(ws *websocket.Conn, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	body, messages := io.Pipe()
	defer cancel()
	// Closing the connection ends the reader below, and what sends.
	defer context.AfterFunc(ctx, func() { _ = ws.Close() })()
	defer context.AfterFunc(g.over, cancel)()
	// At the end of the server a request that is not whole is none; streams
	// are ended by those who serve them.
	defer context.AfterFunc(g.ending, func() { _ = messages.CloseWithError(http.ErrServerClosed) })()
	request := r.Clone(ctx)
	held := g.holds.body(body, cancel)
	defer held.arrival.end()
	request.Method, request.Body, request.ContentLength = http.MethodPost, held, -1
	request.Header = socketHeader(r)
	g.sockets.Go(func() {
		defer cancel()
		// Pieces of a message come one by one; JSON needs no separator.
		part := make([]byte, socketPiece)
		for {
			n, err := ws.Read(part)
			if err != nil {
				break
			}
			_, _ = messages.Write(part[:n]) // nobody reads on after an error or at the end
		}
		_ = messages.Close()
	})
	answer := &lineWriter{send: func(line []byte) error { return websocket.Message.Send(ws, string(line)) }, header: http.Header{}}
	g.mux.ServeHTTP(answer, request)
	_ = answer.end() // the client may have gone
	_ = body.Close()
}

// socketHeader is the header of the request that a websocket carries.
func socketHeader(r *http.Request) http.Header {
	h := http.Header{}
	for _, name := range []string{"Origin", "Referer"} {
		if v := r.Header.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	if _, token, ok := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), bearer+","); ok {
		h.Set("Authorization", bearer+" "+strings.TrimSpace(token))
	}
	if cookie, err := r.Cookie("token"); err == nil {
		h.Set("Authorization", bearer+" "+cookie.Value)
	}
	return h
}

// lineWriter is an answer of which each line is sent as it is whole.
type lineWriter struct {
	send    func(line []byte) error
	header  http.Header
	pending []byte
}

// Header implements [http.ResponseWriter]; a websocket has nowhere to put it.
func (w *lineWriter) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *lineWriter) WriteHeader(int) {}

// Flush implements [http.Flusher]: lines are never kept back.
func (w *lineWriter) Flush() {}

// Write implements [http.ResponseWriter].
func (w *lineWriter) Write(b []byte) (int, error) {
	w.pending = append(w.pending, b...)
	for {
		line, rest, whole := bytes.Cut(w.pending, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		w.pending = rest
		if len(line) == 0 {
			continue
		}
		if err := w.send(line); err != nil {
			return 0, err
		}
	}
}

// end sends what is left: an answer need not end in a line break.
func (w *lineWriter) end() error {
	if len(w.pending) == 0 {
		return nil
	}
	return w.send(w.pending)
}
