package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certs"
	"github.com/concord-kv/concord/kv"
)

// initOptions are the flags of 'concord init'. All but hosts and life only go
// into the commands that it prints.
type initOptions struct {
	hosts                         []string
	life                          time.Duration
	cluster                       string
	expect                        int
	clientAddr, peerAddr, dataDir string
}

// Files that 'concord init' makes beside those of the authority.
const (
	secretName = "secret"
	serverName = "server"
	adminName  = "admin"
)

func newInitCommand(g *globals) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use: "init [DIR]", Short: "Make all that a cluster needs to run with --env prod", Args: cobra.MaximumNArgs(1),
		Long: "Make, in the new directory DIR (default ./concord-prod), what members and an\n" +
			"operator need: a secret for the members (secret), the access token that is root\n" +
			"(root.token), an authority (ca.pem, ca.key), a certificate for the members\n" +
			"(server.pem, server.key) and one for the operator (admin.pem, admin.key). Then\n" +
			"print the commands that come next. Nothing is started, and nothing that is there\n" +
			"is overwritten.",
		Example: "  concord init --host n1.example.com --host n2.example.com --host n3.example.com\n" +
			"  concord init /etc/concord --expect 1",
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.hosts, "host", nil, "name or IP address at which clients reach a member; may be given again (default: this host's name, localhost and 127.0.0.1)")
	f.DurationVar(&o.life, "ttl", certs.CertificateLife, "how long the certificates hold; the authority holds ten years")
	f.StringVar(&o.cluster, "cluster", "concord", "name of the cluster")
	f.IntVar(&o.expect, "expect", 3, "how many members found the cluster")
	f.StringVar(&o.clientAddr, "client-addr", "0.0.0.0:2379", "where members listen for clients")
	f.StringVar(&o.peerAddr, "peer-addr", "", "where members listen for each other, if not at :2380")
	f.StringVar(&o.dataDir, "data-dir", "", "directory of a member, if not the default")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir := "concord-prod"
		if len(args) > 0 {
			dir = args[0]
		}
		if err := o.check(dir); err != nil {
			return err
		}
		if err := o.make(dir); err != nil {
			return err
		}
		_, err := fmt.Fprint(g.std.out, o.next(dir))
		return err
	}
	return cmd
}

func (o *initOptions) check(dir string) error {
	if dir == "" || strings.HasPrefix(dir, "-") {
		return usagef("DIR %q is no directory; name one", dir)
	}
	for flag, addr := range map[string]string{"--client-addr": o.clientAddr, "--peer-addr": o.peerAddr} {
		if _, _, err := net.SplitHostPort(addr); err != nil && (addr != "" || flag == "--client-addr") {
			return usagef("%s %q is no HOST:PORT; write it as 0.0.0.0:2379", flag, addr)
		}
	}
	switch {
	case o.life <= 0:
		return usagef("--ttl %v is no time to live; leave it out for a year", o.life)
	case o.expect < 1:
		return usagef("--expect %d is no number of members; use 1, 3 or 5", o.expect)
	case o.cluster == "":
		return usagef("--cluster is empty; name the cluster")
	}
	if len(o.hosts) == 0 {
		o.hosts = []string{"localhost", "127.0.0.1"}
		if host, err := os.Hostname(); err == nil && host != "localhost" {
			o.hosts = append([]string{host}, o.hosts...)
		}
	}
	return nil
}

// make makes everything in a directory that was not there, or is empty: a part
// of what somebody has made before does not fit the rest.
func (o *initOptions) make(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if there, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(there) > 0 {
		err := &fs.PathError{Op: "init", Path: dir, Err: errNotEmpty}
		return &hintedError{err, "Name a directory that is not there yet, or remove this one; nothing in it was changed."}
	}
	authority, err := certs.NewAuthority(dir, o.cluster+" authority", certs.AuthorityLife)
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return errors.Join(
		certs.WriteNew(in(secretName), []byte(concord.NewSecret()+"\n"), 0o600),
		certs.WriteNew(in(rootTokenName), []byte(kv.NewSecretToken()+"\n"), 0o600),
		authority.Issue(in(serverName+".pem"), in(serverName+".key"), certs.Certificate{Name: o.cluster, Hosts: o.hosts, Server: true, Life: o.life}),
		authority.Issue(in(adminName+".pem"), in(adminName+".key"), certs.Certificate{Name: adminName, Client: true, Life: o.life}),
	)
}

var errNotEmpty = fmt.Errorf("%w, and not empty", fs.ErrExist)

// next are the commands that come next, as they are typed.
func (o *initOptions) next(dir string) string {
	var b strings.Builder
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs // so that the commands go in any directory
	}
	in := func(name string) string { return quoted(filepath.Join(dir, name)) }
	fmt.Fprintf(&b, "%s has what the cluster needs. ca.key and admin.key stay with you; members need the rest.\n\n", dir)
	if o.expect > 1 {
		fmt.Fprintf(&b, "Copy the directory, without those two, to the same place on the host of each member.\nThen, on each:\n\n")
	} else {
		fmt.Fprintf(&b, "Start the member:\n\n")
	}
	fmt.Fprintf(&b, "  concord serve --env prod --cluster %s --secret-file %s --root-token-file %s --tls-cert %s --tls-key %s --tls-client-ca %s --client-addr %s",
		quoted(o.cluster), in(secretName), in(rootTokenName), in(serverName+".pem"), in(serverName+".key"), in("ca.pem"), quoted(o.clientAddr))
	if o.expect != 3 {
		fmt.Fprintf(&b, " --expect %d", o.expect)
	}
	if o.peerAddr != "" {
		fmt.Fprintf(&b, " --peer-addr %s", quoted(o.peerAddr))
	}
	if o.dataDir != "" {
		fmt.Fprintf(&b, " --data-dir %s", quoted(o.dataDir))
	}
	fmt.Fprintf(&b, "\n\nAnd from here:\n\n")
	for _, line := range []string{
		"export CONCORD_ENDPOINTS=" + quoted(o.endpoint()),
		"export CONCORD_CLIENT_TLS_CA=" + in("ca.pem"),
		"export CONCORD_CLIENT_TLS_CERT=" + in(adminName+".pem"),
		"export CONCORD_CLIENT_TLS_KEY=" + in(adminName+".key"),
		"export CONCORD_TOKEN_FILE=" + in(rootTokenName),
		"concord put greeting hello",
		"concord get greeting",
		"concord cluster status",
	} {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}

// endpoint is where a client of this host finds a member.
func (o *initOptions) endpoint() string {
	host, port, err := net.SplitHostPort(o.clientAddr)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		host = o.hosts[0]
	}
	return net.JoinHostPort(host, port)
}

// quoted is a word as a shell takes it: brackets, too, as of [::]:2379, are more
// than themselves to some.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:,@%+=", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
