package secret

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const good = "correct horse battery"

func derive(t *testing.T, cluster, secret string) *Keys {
	t.Helper()
	k, err := Derive(cluster, secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSecretIsLongEnough(t *testing.T) {
	for _, s := range []string{"", strings.Repeat("x", MinLength-1), "\n" + strings.Repeat("x", MinLength-1) + " \r\n"} {
		if _, err := Derive("c", s); !errors.Is(err, ErrTooShort) || !strings.Contains(err.Error(), "concord secret") {
			t.Errorf("%q: %v", s, err)
		}
	}
	derive(t, "c", strings.Repeat("x", MinLength))
}

func TestNewSecrets(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s := New()
		if len(s) < 26 || seen[s] || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("a bad secret, or the second of its kind: %q", s)
		}
		seen[s] = true
		derive(t, "c", s)
	}
}

// authorityKey is the public key of who signs peers' certificates.
func authorityKey(t *testing.T, k *Keys) []byte {
	t.Helper()
	chain, err := k.client.Certificates[0].Leaf.Verify(x509.VerifyOptions{Roots: k.client.RootCAs, CurrentTime: k.client.Time()})
	if err != nil {
		t.Fatal(err)
	}
	return chain[0][1].PublicKey.(ed25519.PublicKey)
}

// The keys that were derived by the first release: another value would cut new
// processes off from old ones.
func TestKeysStayTheSame(t *testing.T) {
	k := derive(t, "orders", good)
	for name, pair := range map[string][2]string{
		"gossip": {hex.EncodeToString(k.gossip), "82f1ac0c98bc3c65c32e5d2458e4828d06099971c47285fd5284f8762349dbe5"},
		"beacon": {hex.EncodeToString(k.beacon.Seal(nil, make([]byte, 24), []byte("x"), nil)), "d3d01f90fb1a3580fb74d81c1e4facd75d"},
		"peer":   {hex.EncodeToString(authorityKey(t, k)), "2160248146141ad86231f2a9269f68afde75b78f36981a08c9616f6e61101e9d"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, want %s", name, pair[0], pair[1])
		}
	}
}

func TestKeysAreApart(t *testing.T) {
	all := map[string]string{}
	for _, k := range []struct{ cluster, secret string }{
		{"orders", good}, {"orders2", good}, {"", good}, {"orders", good + "2"},
	} {
		keys := derive(t, k.cluster, k.secret)
		for _, key := range [][]byte{keys.Gossip(), authorityKey(t, keys), keys.beacon.Seal(nil, make([]byte, 24), make([]byte, 16), nil)} {
			if other, ok := all[string(key)]; ok {
				t.Errorf("%v has a key of %s", k, other)
			}
			all[string(key)] = fmt.Sprint(k)
		}
	}
	if a, b := derive(t, "c", good), derive(t, "c", " "+good+"\r\n"); !bytes.Equal(a.gossip, b.gossip) {
		t.Error("the end of a line counts")
	}
}

func TestKeysStayOutOfText(t *testing.T) {
	k := derive(t, "c", good)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%x", k), fmt.Sprintf("%v", *k)} {
		if len(text) > 40 {
			t.Errorf("keys are printed as %s", text)
		}
	}
}

// The vectors of https://c2sp.org/XAES-256-GCM.
func TestXAES(t *testing.T) {
	for _, v := range []struct {
		key        byte
		additional string
		want       string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		x, err := newXAES(bytes.Repeat([]byte{v.key}, 32))
		if err != nil {
			t.Fatal(err)
		}
		nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
		sealed := x.Seal(nil, nonce, []byte("XAES-256-GCM"), []byte(v.additional))
		if got := hex.EncodeToString(sealed); got != v.want {
			t.Errorf("sealed %s, want %s", got, v.want)
		}
		if plain, err := x.Open(nil, nonce, sealed, []byte(v.additional)); err != nil || string(plain) != "XAES-256-GCM" {
			t.Errorf("opened %q, %v", plain, err)
		}
		for i := range sealed {
			sealed[i] ^= 1
			if _, err := x.Open(nil, nonce, sealed, []byte(v.additional)); err == nil {
				t.Errorf("opened with byte %d changed", i)
			}
			sealed[i] ^= 1
		}
		if len(sealed) != len("XAES-256-GCM")+x.Overhead() || len(nonce) != x.NonceSize() {
			t.Error("the sizes are others than said")
		}
	}
	if _, err := newXAES(make([]byte, 16)); err == nil {
		t.Error("a short key was taken")
	}
}

// meet lets a client and a server of two processes shake hands and pass a word.
func meet(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(30 * time.Second)) // of a TCP connection: it works
		_, err = tls.Server(raw, server).Write([]byte("welcome"))
		served <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(30 * time.Second)) // as above
	conn := tls.Client(raw, client)
	got, err := io.ReadAll(io.LimitReader(conn, 7))
	if err != nil {
		raw.Close()
		return errors.Join(err, <-served)
	}
	state := conn.ConnectionState()
	if string(got) != "welcome" || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != PeerProtocol {
		t.Errorf("read %q over TLS %x, %q", got, state.Version, state.NegotiatedProtocol)
	}
	return <-served
}

func peer(t *testing.T, k *Keys) (server, client *tls.Config) {
	t.Helper()
	return k.Server(), k.Client()
}

func TestPeersOfOneSecretMeet(t *testing.T) {
	server, _ := peer(t, derive(t, "c", good))
	_, client := peer(t, derive(t, "c", good)) // another process
	if err := meet(t, server, client); err != nil {
		t.Error(err)
	}
	if client.InsecureSkipVerify || server.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("a side does not check the other")
	}
	other, _ := peer(t, derive(t, "c", good))
	if bytes.Equal(server.Certificates[0].Certificate[0], other.Certificates[0].Certificate[0]) {
		t.Error("two processes have one certificate")
	}
}

func TestStrangersFailTheHandshake(t *testing.T) {
	server, client := peer(t, derive(t, "c", good))
	for name, k := range map[string]*Keys{"secret": derive(t, "c", good+"2"), "cluster": derive(t, "d", good)} {
		strangeServer, strangeClient := peer(t, k)
		if err := meet(t, server, strangeClient); err == nil {
			t.Errorf("a client of another %s was let in", name)
		}
		if err := meet(t, strangeServer, client); err == nil {
			t.Errorf("a server of another %s was trusted", name)
		}
		// Each side alone is enough to refuse.
		blind := client.Clone()
		blind.Certificates = strangeClient.Certificates
		if err := meet(t, server, blind); err == nil {
			t.Errorf("a certificate of another %s was let in", name)
		}
	}
	naked := client.Clone()
	naked.Certificates = nil
	if err := meet(t, server, naked); err == nil {
		t.Error("a client without a certificate was let in")
	}
	old := client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := meet(t, server, old); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
	web := client.Clone()
	web.NextProtos = []string{"h2"}
	if err := meet(t, server, web); err == nil {
		t.Error("another protocol was spoken")
	}
}

// A peer's certificate signs no others.
func TestPeersAreNoAuthorities(t *testing.T) {
	server, client := peer(t, derive(t, "c", good))
	leaf := client.Certificates[0]
	parent := authority{cert: leaf.Leaf, key: leaf.PrivateKey.(ed25519.PrivateKey)}
	forged, err := parent.issue()
	if err != nil {
		t.Fatal(err)
	}
	forged.Certificate = append(forged.Certificate, leaf.Certificate...)
	liar := client.Clone()
	liar.Certificates = []tls.Certificate{forged}
	if err := meet(t, server, liar); err == nil {
		t.Error("a certificate signed by a peer was let in")
	}
}
