package shim

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/concord-kv/concord/compat/authority"
)

// cluster is members that know each other from their command lines.
type cluster struct {
	t       *testing.T
	p       programs
	scheme  string
	keys    *authority.Authority // nil without TLS
	members []*member
}

func (c *cluster) add(name string) *member {
	c.t.Helper()
	m := newMember(c.t, c.p, name, c.scheme, c.scheme)
	if k := c.keys; k != nil {
		m.args = append(k.Flags(), "--peer-cert-allowed-cn", "peer",
			"--cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA")
	}
	c.members = append(c.members, m)
	return m
}

// initial is --initial-cluster.
func (c *cluster) initial() string {
	var list []string
	for _, m := range c.members {
		list = append(list, m.name+"="+m.peer)
	}
	return strings.Join(list, ",")
}

func (c *cluster) ctl(members ...*member) ctl {
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.client)
	}
	flags := []string{"--endpoints", strings.Join(endpoints, ",")}
	if k := c.keys; k != nil {
		flags = append(flags, "--cacert", k.Path(authority.CA), "--cert", k.Path("client"), "--key", k.Key("client"))
	}
	return ctl{c.t, c.p.etcdctl, flags}
}

// testCluster founds a cluster from three command lines, restarts it, lets it
// grow, and goes on with one member when the others are lost.
func testCluster(t *testing.T, p programs, scheme string, keys *authority.Authority) {
	c := &cluster{t: t, p: p, scheme: scheme, keys: keys}
	a, b, d := c.add("a"), c.add("b"), c.add("d")
	founders := c.initial()
	for _, m := range c.members {
		m.start(m.flags("--initial-cluster", founders, "--initial-cluster-token", "tkn", "--initial-cluster-state=new")...)
	}
	for _, m := range c.members {
		m.ready()
	}
	all := c.ctl(a, b, d)
	for _, m := range c.members {
		c.ctl(m).want("OK", "put", "by-"+m.name, "x")
	}
	all.want("3", "get", "by-", "--prefix", "--count-only", "-w", "fields")
	list := all.run("member", "list")
	for _, m := range c.members {
		if !strings.Contains(list, ", started, "+m.name+", "+m.peer+", "+m.client+", false") {
			t.Errorf("%s is not listed:\n%s", m.name, list)
		}
	}
	if keys != nil {
		c.refuseStrangers(a)
		c.replaceCertificate(a)
	}
	// The same command lines again, though the list has changed meanwhile.
	a.stop()
	all.want("OK", "put", "while-a-is-away", "x")
	a.start(a.flags("--initial-cluster", founders, "--initial-cluster-token", "tkn", "--initial-cluster-state=new")...)
	a.ready()
	_ = b.end(syscall.SIGKILL)
	b.start(b.flags("--initial-cluster", "nonsense")...)
	b.ready()
	c.ctl(a).want("x", "get", "while-a-is-away")
	c.grow(a, b)
	c.loseMost(a)
}

// refuseStrangers: nobody is let in without a certificate, or without TLS.
func (c *cluster) refuseStrangers(m *member) {
	c.t.Helper()
	quick := []string{"--command-timeout=3s", "--endpoints"}
	for name, flags := range map[string][]string{
		"no certificate": append(quick, m.client, "--cacert", c.keys.Path(authority.CA)),
		"no TLS":         append(quick, strings.Replace(m.client, "https", "http", 1)),
	} {
		if out, err := (ctl{c.t, c.p.etcdctl, flags}).try("get", "a"); err == nil {
			c.t.Errorf("%s: let in: %s", name, out)
		}
	}
}

// replaceCertificate: new files count without a restart.
func (c *cluster) replaceCertificate(m *member) {
	c.t.Helper()
	before, err := os.ReadFile(c.keys.Path("server"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.keys.Issue("server")
	if after, err := os.ReadFile(c.keys.Path("server")); err != nil || string(after) == string(before) {
		c.t.Fatal("the certificate is the same", err)
	}
	c.ctl(m).want("OK", "put", "new-certificate", "x")
	if !strings.Contains(m.log.all(), "certificates reloaded") {
		c.t.Error("no word of the new certificate in the log")
	}
}

var added = regexp.MustCompile(`Member +([0-9a-f]+) added`)

// grow adds a voter, and a learner that is promoted, as etcdctl's output says.
func (c *cluster) grow(through *member, others ...*member) {
	c.t.Helper()
	all := c.ctl(append(others, through)...)
	uninvited := c.add("uninvited")
	uninvited.fails("no member was added", uninvited.flags("--initial-cluster", c.initial(), "--initial-cluster-state=existing")...)
	c.members = c.members[:len(c.members)-1]
	for _, name := range []string{"voter", "learner"} {
		m := c.add(name)
		args := []string{"member", "add", name, "--peer-urls=" + m.peer}
		if name == "learner" {
			args = append(args, "--learner")
		}
		id := added.FindStringSubmatch(all.run(args...))
		if id == nil {
			c.t.Fatal("etcdctl printed no id")
		}
		all.want(id[1]+", unstarted, ", "member", "list")
		flags := m.flags("--initial-cluster", c.initial(), "--initial-cluster-state", "existing", "--initial-cluster-token", "tkn")
		m.start(flags...)
		m.ready()
		all.until(id[1]+", started, "+name, "member", "list")
		if name == "learner" {
			c.ctl(m).want(`"isLearner":true`, "endpoint", "status", "-w", "json")
			all.until("promoted", "member", "promote", id[1])
		}
		c.ctl(m).until("x", "get", "by-a")
		m.stop()
		m.start(flags...)
		m.ready()
		c.ctl(m).want("OK", "put", "by-"+name, "x")
		// Its disk is lost: it cannot come back as the one it was.
		m.stop()
		if err := os.Rename(m.dir, m.dir+".lost"); err != nil {
			c.t.Fatal(err)
		}
		m.fails("has already been bootstrapped", flags...)
		if err := os.RemoveAll(m.dir); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Rename(m.dir+".lost", m.dir); err != nil {
			c.t.Fatal(err)
		}
		m.start(flags...)
		m.ready()
	}
	all.want("x", "get", "by-learner")
}

// loseMost kills all, and goes on with one.
func (c *cluster) loseMost(m *member) {
	c.t.Helper()
	one := c.ctl(m)
	one.want("OK", "put", "last", "x")
	for _, m := range c.members {
		_ = m.end(syscall.SIGKILL)
	}
	m.start(m.flags("--force-new-cluster")...)
	m.ready()
	one.want("x", "get", "last")
	if list := one.run("member", "list"); strings.Count(list, "\n") != 1 || !strings.Contains(list, m.name) {
		c.t.Errorf("members:\n%s", list)
	}
	one.want("OK", "put", "afterwards", "x")
	m.stop()
	m.start(m.flags()...)
	m.ready()
	one.want("x", "get", "afterwards")
	// And it can grow again.
	next := c.add("next")
	one.run("member", "add", "next", "--peer-urls="+next.peer)
	next.start(next.flags("--initial-cluster", fmt.Sprintf("%s=%s,%s=%s", m.name, m.peer, next.name, next.peer), "--initial-cluster-state=existing")...)
	next.ready()
	c.ctl(next).want("x", "get", "afterwards")
	next.stop()
	m.stop()
}
