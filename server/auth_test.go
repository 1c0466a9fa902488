package server

import (
	"fmt"
	"net"
	"testing"

	"github.com/concord-kv/concord/kv"
)

func TestBadAuthToken(t *testing.T) {
	for _, cfg := range []AuthConfig{{Token: "nosuch"}, {TTL: -1}, {Token: "jwt,sign-method=RS256,pub-key=/nonexistent"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(nil, nil, Config{Listeners: []net.Listener{l}, Auth: cfg}); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%+v: %v", cfg, err)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = c.Close()
			t.Error(fmt.Sprint(cfg, ": the listener was left open"))
		}
	}
}
