package coredns

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/etcd"
	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// endpoints are the servers'.
func endpoints(t *testing.T) []string {
	t.Helper()
	list := os.Getenv("ENDPOINTS")
	if list == "" {
		t.Fatal("ENDPOINTS names no servers; make compat-coredns starts them")
	}
	return strings.Split(list, ",")
}

// client is etcd's own, with which records are written.
func client(t *testing.T, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints(t), Username: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func put(t *testing.T, c *clientv3.Client, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

// start starts CoreDNS on a free port and returns its address.
func start(t *testing.T, more ...string) string {
	t.Helper()
	dnsserver.Directives, dnsserver.Quiet, caddy.Quiet = []string{"etcd"}, true, true
	file := fmt.Sprintf("example.test:0 10.in-addr.arpa:0 8.b.d.0.1.0.0.2.ip6.arpa:0 {\netcd {\nendpoint %s\n%s\n}\n}\n",
		strings.Join(endpoints(t), " "), strings.Join(more, "\n"))
	instance, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(file), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	t.Cleanup(func() {
		instance.ShutdownCallbacks()
		if err := instance.Stop(); err != nil {
			t.Error(err)
		}
	})
	return instance.Servers()[0].LocalAddr().String()
}

// ask returns the answer's code and its records, sorted, without their TTLs.
func ask(t *testing.T, server, name, kind string) (string, []dns.RR) {
	t.Helper()
	question := new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
	answer, _, err := (&dns.Client{Timeout: patience}).ExchangeContext(t.Context(), question, server)
	if err != nil {
		t.Fatalf("%s %s: %v", name, kind, err)
	}
	return dns.RcodeToString[answer.Rcode], append(answer.Answer, answer.Extra...)
}

func text(records []dns.RR) (list []string) {
	for _, r := range records {
		list = append(list, strings.TrimPrefix(strings.Join(strings.Fields(r.String()), " "), r.Header().Name+" "))
	}
	slices.Sort(list)
	return list
}

func want(t *testing.T, server, name, kind, code string, records ...string) {
	t.Helper()
	got, answer := ask(t, server, name, kind)
	slices.Sort(records)
	if got != code || !slices.Equal(text(answer), records) {
		t.Errorf("%s %s: %s %q, want %s %q", name, kind, got, text(answer), code, records)
	}
}

func TestRecords(t *testing.T) {
	c := client(t, "", "")
	for key, value := range map[string]string{
		"test/example/www/a":     `{"host":"10.0.0.1","ttl":60}`,
		"test/example/www/b":     `{"host":"10.0.0.2","ttl":60}`,
		"test/example/www/six":   `{"host":"2001:db8::1","ttl":30}`,
		"test/example/db/master": `{"host":"10.0.0.3","port":5432,"priority":5,"weight":25,"ttl":60}`,
		"test/example/db/slave":  `{"host":"10.0.0.4","port":5432,"priority":5,"weight":75,"ttl":60}`,
		"test/example/note/x":    `{"text":"two words","ttl":60}`,
		"test/example/alias":     `{"host":"db.example.test","ttl":60}`,
		"test/example/broken":    `{"host":`,
		"arpa/in-addr/10/0/0/1":  `{"host":"www.example.test","ttl":60}`,
		"arpa/ip6/2/0/0/1/0/d/b/8" + strings.Repeat("/0", 23) + "/1": `{"host":"six.example.test","ttl":60}`,
	} {
		put(t, c, "/skydns/"+key, value)
	}
	s := start(t)
	want(t, s, "www.example.test.", "A", "NOERROR", "60 IN A 10.0.0.1", "60 IN A 10.0.0.2")
	want(t, s, "a.www.example.test.", "A", "NOERROR", "60 IN A 10.0.0.1")
	want(t, s, "*.www.example.test.", "AAAA", "NOERROR", "30 IN AAAA 2001:db8::1")
	want(t, s, "www.example.test.", "AAAA", "NOERROR", "30 IN AAAA 2001:db8::1")
	want(t, s, "db.example.test.", "SRV", "NOERROR",
		"60 IN SRV 5 25 5432 master.db.example.test.", "60 IN SRV 5 75 5432 slave.db.example.test.",
		"60 IN A 10.0.0.3", "60 IN A 10.0.0.4")
	want(t, s, "note.example.test.", "TXT", "NOERROR", `60 IN TXT "two words"`)
	want(t, s, "alias.example.test.", "CNAME", "NOERROR", "60 IN CNAME db.example.test.")
	want(t, s, "1.0.0.10.in-addr.arpa.", "PTR", "NOERROR", "60 IN PTR www.example.test.")
	reverse, err := dns.ReverseAddr("2001:db8::1")
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, reverse, "PTR", "NOERROR", "60 IN PTR six.example.test.")
	want(t, s, "none.example.test.", "A", "NXDOMAIN")
	want(t, s, "note.example.test.", "A", "NOERROR")
	want(t, s, "broken.example.test.", "A", "SERVFAIL")
	if _, err := c.Delete(t.Context(), "/skydns/test/example/www/b"); err != nil {
		t.Fatal(err)
	}
	want(t, s, "www.example.test.", "A", "NOERROR", "60 IN A 10.0.0.1")
}

// TestLease: a record's TTL is its lease's, and it ends with it.
func TestLease(t *testing.T) {
	c := client(t, "", "")
	lease, err := c.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, "/skydns/test/example/leased", `{"host":"10.1.0.1"}`, clientv3.WithLease(lease.ID))
	s := start(t)
	code, answer := ask(t, s, "leased.example.test.", "A")
	if code != "NOERROR" || len(answer) != 1 || answer[0].Header().Ttl > 600 || answer[0].Header().Ttl < 600-uint32(patience.Seconds()) {
		t.Errorf("%s %q", code, text(answer))
	}
	if _, err := c.Revoke(t.Context(), lease.ID); err != nil {
		t.Fatal(err)
	}
	want(t, s, "leased.example.test.", "A", "NXDOMAIN")
}

// TestRestart: CoreDNS finds its servers again after each was killed.
func TestRestart(t *testing.T) {
	put(t, client(t, "", ""), "/skydns/test/example/stays", `{"host":"10.2.0.1","ttl":60}`)
	s := start(t)
	want(t, s, "stays.example.test.", "A", "NOERROR", "60 IN A 10.2.0.1")
	for i := range endpoints(t) {
		answer, err := http.Post(fmt.Sprintf("%s/restart?member=%d", os.Getenv("CONTROL"), i), "", nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
		_ = answer.Body.Close()
		// The plugin gives each look-up five seconds, less than its client may take to
		// connect again.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for code := ""; code != "NOERROR" && ctx.Err() == nil; {
			code, _ = ask(t, s, "stays.example.test.", "A")
		}
		cancel()
		want(t, s, "stays.example.test.", "A", "NOERROR", "60 IN A 10.2.0.1")
	}
}

// TestPassword: the plugin's credentials are asked for, and need no more than
// to read.
func TestPassword(t *testing.T) {
	c := client(t, "", "")
	put(t, c, "/skydns/test/example/secret", `{"host":"10.3.0.1","ttl":60}`)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(c.UserAdd(ctx, "root", "rootpass"))
	must(c.RoleAdd(ctx, "root"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.UserAdd(ctx, "dns", "dnspass"))
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", "/skydns/", clientv3.GetPrefixRangeEnd("/skydns/"), clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserGrantRole(ctx, "dns", "reader"))
	must(c.AuthEnable(ctx))
	root := client(t, "root", "rootpass")
	t.Cleanup(func() {
		if _, err := root.AuthDisable(context.Background()); err != nil {
			t.Error(err)
		}
	})
	want(t, start(t, "credentials dns dnspass"), "secret.example.test.", "A", "NOERROR", "60 IN A 10.3.0.1")
	want(t, start(t), "secret.example.test.", "A", "SERVFAIL")
}
