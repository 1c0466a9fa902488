package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// runOn runs a command at endpoints.
func runOn(t *testing.T, endpoints string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	code = run(t.Context(), append(args, "--endpoints", endpoints, "--timeout", "30s"), stdio{in: strings.NewReader(""), out: &out, err: &problems})
	return code, out.String(), problems.String()
}

// TestClusterBySocket asks at a unix socket, behind an address where nobody is.
func TestClusterBySocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/v1/cluster/remove" || string(body) != `{"member":"n2"}` || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer me" {
			t.Errorf("%s %s %s %v", r.Method, r.URL, body, r.Header)
		}
		_, _ = io.WriteString(w, `{"member":{"id":"a2","name":"n2"}}`)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()
	code, out, problems := runOn(t, "127.0.0.1:1,unix://"+path, "cluster", "remove", "n2", "--token", "me")
	if code != exitOK || out != "n2 (a2) removed\n" || problems != "" {
		t.Errorf("%d %s %s", code, out, problems)
	}
}

// TestClusterLostAnswer sends no change twice, and says that nobody knows. A
// question is asked elsewhere.
func TestClusterLostAnswer(t *testing.T) {
	var asked atomic.Int32
	deaf := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer deaf.Close()
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s was sent twice", r.Method, r.URL)
		}
		_, _ = io.WriteString(w, `{"members":[{"id":"a1"}]}`)
	}))
	defer good.Close()
	both := deaf.URL + "," + good.URL
	code, _, problems := runOn(t, both, "cluster", "remove", "n2")
	if code != exitUnavailable || !strings.Contains(problems, "the outcome is unknown") || asked.Load() != 1 {
		t.Errorf("%d %s, asked %d times", code, problems, asked.Load())
	}
	code, out, problems := runOn(t, both, "cluster", "members", "-o", "value")
	if code != exitOK || out != "a1\n" || problems != "" {
		t.Errorf("%d %s %s", code, out, problems)
	}
}

// TestHintsOfAnswers prints the next step that an answer has.
func TestHintsOfAnswers(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	code, _, problems := runOn(t, other.URL, "cluster", "members")
	if code != exitError || !strings.Contains(problems, "not as a member of Concord does") || !strings.Contains(problems, "Etcd's members, and older ones") {
		t.Errorf("%d %s", code, problems)
	}
	if got := hintFor(kv.WithNext(errors.New("e"), "do it")); got != "Do it." {
		t.Errorf("%q", got)
	}
}

func TestShort(t *testing.T) {
	for micros, want := range map[int64]string{7: "7µs", 170: "170µs", 7843: "7.84ms", 15_300: "15.3ms", 153_400: "153ms", 1_534_000: "1.53s", 61_000_000: "1m1s", 700_000_000: "11m40s"} {
		if got := shortTime(micros); got != want {
			t.Errorf("%d µs: %s, want %s", micros, got, want)
		}
	}
	for n, want := range map[int64]string{-1: "-", 0: "0B", 999: "999B", 1024: "1.0K", 43 << 20: "43M", 1000 << 20: "1.0G", 47 << 30: "47G", 1 << 50: "1.0P", 1 << 62: "4096P"} {
		if got := shortBytes(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	if d := time.Duration(0); kv.About(d) != "0s" {
		t.Error(kv.About(d))
	}
}
