package secret

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func newRing(t *testing.T, secrets ...string) *Ring {
	t.Helper()
	r, err := NewRing("c", strings.Join(secrets, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRingsMeet: whoever has the other's first secret meets it, at each step of a
// change, and nobody else does.
func TestRingsMeet(t *testing.T) {
	old, next := New(), New()
	rings := map[string]*Ring{
		"old": newRing(t, old), "old next": newRing(t, old, next), "next old": newRing(t, next, old), "next": newRing(t, next),
	}
	knows := func(a, b string) bool { return slices.Contains(strings.Fields(a), strings.Fields(b)[0]) }
	for a, server := range rings {
		for b, client := range rings {
			err := meet(t, server.Server(), client.Client())
			if want := knows(a, b) && knows(b, a); (err == nil) != want {
				t.Errorf("%s serves %s: %v", a, b, err)
			}
			nonce := make([]byte, server.Beacon().NonceSize())
			sealed := server.Beacon().Seal(nil, nonce, []byte("here"), []byte("head"))
			plain, err := client.Beacon().Open(nil, nonce, sealed, []byte("head"))
			if want := knows(b, a); (err == nil) != want || want && string(plain) != "here" || len(sealed) != 4+client.Beacon().Overhead() {
				t.Errorf("%s hears %s: %q, %v", b, a, plain, err)
			}
		}
	}
	if len(rings["next old"].Gossip()) != 2 || !bytes.Equal(rings["next old"].Gossip()[0], rings["next"].Gossip()[0]) {
		t.Error("the first key of gossip is not the first secret's")
	}
}

// TestRingFollows: what was made of a ring before it was changed is of the new
// secrets after it.
func TestRingFollows(t *testing.T) {
	old, next := New(), New()
	r := newRing(t, old)
	server, beacon := r.Server(), r.Beacon()
	state := handshake(t, r, r)
	for secrets, want := range map[string]bool{old: false, " " + old + "\r\n\n": false, old + "\n" + next: true} {
		if changed, err := r.Set(secrets); err != nil || changed != want {
			t.Errorf("%v, %v", changed, err)
		}
		if want && !r.Accepts(state) {
			t.Error("a connection of before is not accepted")
		}
		if _, err := r.Set(old); err != nil {
			t.Fatal(err)
		}
	}
	if changed, err := r.Set(next); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if r.Accepts(state) || r.Accepts(new(tls.ConnectionState)) {
		t.Error("a connection of before is accepted")
	}
	if !r.Accepts(handshake(t, r, r)) {
		t.Error("a connection of now is not accepted")
	}
	if err := meet(t, server, newRing(t, next).Client()); err != nil {
		t.Errorf("a configuration of before: %v", err)
	}
	if err := meet(t, server, newRing(t, old).Client()); err == nil {
		t.Error("the old secret is accepted")
	}
	if sealed := newRing(t, next).Beacon().Seal(nil, make([]byte, 24), []byte("x"), nil); len(sealed) > 0 {
		if _, err := beacon.Open(nil, make([]byte, 24), sealed, nil); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "short", next + "\nshort", strings.Join(manySecrets(), "\n")} {
		if changed, err := r.Set(bad); changed || err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), next) {
			t.Errorf("a secret is in the error: %v", err)
		}
	}
	if names := r.Names(); len(names) != 1 || len(names[0]) != 8 || names[0] == newRing(t, old).Names()[0] {
		t.Errorf("named %v", names)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", r, r, r, r); strings.Contains(text, next) || len(text) > 100 {
		t.Errorf("a ring is printed as %s", text)
	}
}

func manySecrets() (out []string) {
	for range MostSecrets + 1 {
		out = append(out, New())
	}
	return out
}

// handshake is what the server sees of the client.
func handshake(t *testing.T, server, client *Ring) *tls.ConnectionState {
	t.Helper()
	var state tls.ConnectionState
	cfg := server.state().server.Clone()
	cfg.VerifyConnection = func(s tls.ConnectionState) error { state = s; return nil }
	if err := meet(t, cfg, client.Client()); err != nil {
		t.Fatal(err)
	}
	return &state
}

// TestCertificatesAreRenewed: one that is a day old is not used for the next
// connection, and those that know the secret accept the new one.
func TestCertificatesAreRenewed(t *testing.T) {
	r, other := newRing(t, good), newRing(t, good)
	leaf := func() []byte { return r.Client().Certificates[0].Certificate[0] }
	first := leaf()
	if !bytes.Equal(first, leaf()) {
		t.Error("a new one for each connection")
	}
	aged := *r.now.Load()
	aged.made = time.Now().Add(-certificateAge)
	r.now.Store(&aged)
	if bytes.Equal(first, leaf()) {
		t.Error("it is not renewed")
	}
	if err := meet(t, other.Server(), r.Client()); err != nil {
		t.Error(err)
	}
	if err := meet(t, r.Server(), other.Client()); err != nil {
		t.Error(err)
	}
}
