package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord/internal/certs"
)

// issueOptions are the flags of commands that make certificates.
type issueOptions struct {
	dir   string
	hosts []string
	life  time.Duration
	renew bool
	peer  bool
}

func newTLSCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tls", Short: "Make an authority, and certificates for members and clients", Args: cobra.NoArgs,
		Long: "Make what TLS needs, in one directory: an authority (ca.pem, ca.key), and\n" +
			"certificates that it signs (NAME.pem, NAME.key). ca.key makes certificates for\n" +
			"everybody: keep it where no member runs. Keys are ECDSA P-256, their files are\n" +
			"readable by their owner alone, and nothing that is there is overwritten.",
		Example: "  concord tls ca\n  concord tls server n1 --host n1.example.com --host 10.0.0.1\n  concord tls client alice\n  concord tls client alice --renew",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTLSCACommand(g), newTLSServerCommand(g), newTLSClientCommand(g))
	return cmd
}

func (o *issueOptions) addFlags(cmd *cobra.Command, life time.Duration) {
	cmd.Flags().StringVar(&o.dir, "dir", "tls", "directory of the authority and of what it signs")
	cmd.Flags().DurationVar(&o.life, "ttl", life, "how long it holds")
}

func newTLSCACommand(g *globals) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use: "ca [NAME]", Short: "Make an authority: ca.pem and ca.key", Args: cobra.MaximumNArgs(1),
		Example: "  concord tls ca --dir tls",
	}
	o.addFlags(cmd, certs.AuthorityLife)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		name := "concord authority"
		if len(args) > 0 {
			name = args[0]
		}
		if o.life <= 0 {
			return usagef("--ttl %v is no time to live; leave it out for ten years", o.life)
		}
		if _, err := certs.NewAuthority(o.dir, name, o.life); err != nil {
			return err
		}
		_, err := fmt.Fprintf(g.std.out, "%s: %s, and %s, which you keep to yourself\n", name, filepath.Join(o.dir, "ca.pem"), filepath.Join(o.dir, "ca.key"))
		return err
	}
	return cmd
}

func newTLSServerCommand(g *globals) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use: "server NAME", Short: "Make a certificate for a member, or for several", Args: cobra.ExactArgs(1),
		Long: "Make NAME.pem and NAME.key, for --tls-cert and --tls-key of 'concord serve'. It is\n" +
			"for the names and addresses of --host, at which clients connect; without any it\n" +
			"is for NAME. With --renew a certificate that is there gets a new time to live, in\n" +
			"one step; members take it up by themselves.",
		Example: "  concord tls server n1 --host n1.example.com --host 10.0.0.1\n  concord tls server n1 --renew",
	}
	o.addFlags(cmd, certs.CertificateLife)
	cmd.Flags().StringSliceVar(&o.hosts, "host", nil, "name or IP address of the member; may be given again")
	cmd.Flags().BoolVar(&o.renew, "renew", false, "renew the one that is there, with its names and its key")
	cmd.Flags().BoolVar(&o.peer, "peer", false, "also for --peer-tls-cert, where a member is a client of others")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		hosts := o.hosts
		if len(hosts) == 0 {
			hosts = args
		}
		return g.issue(&o, certs.Certificate{Name: args[0], Hosts: hosts, Server: true, Client: o.peer})
	}
	return cmd
}

func newTLSClientCommand(g *globals) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use: "client NAME", Short: "Make a certificate for a client: the user of that name", Args: cobra.ExactArgs(1),
		Long: "Make NAME.pem and NAME.key, for --tls-cert and --tls-key of clients. Members that\n" +
			"have --tls-client-ca let in who shows one, and take NAME for the user who calls,\n" +
			"where the client gives no token.",
		Example: "  concord tls client alice\n  concord tls client alice --renew",
	}
	o.addFlags(cmd, certs.CertificateLife)
	cmd.Flags().BoolVar(&o.renew, "renew", false, "renew the one that is there, with its key")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return g.issue(&o, certs.Certificate{Name: args[0], Client: true})
	}
	return cmd
}

// issue makes, or renews, a certificate of the authority in o.dir.
func (g *globals) issue(o *issueOptions, c certs.Certificate) error {
	if c.Name == "" || strings.ContainsAny(c.Name, "/\\\x00") || strings.HasPrefix(c.Name, ".") || c.Name == "ca" {
		return usagef("NAME %q is no name for a file beside ca.pem; take another", c.Name)
	}
	if o.life <= 0 {
		return usagef("--ttl %v is no time to live; leave it out for a year", o.life)
	}
	if o.renew && (len(o.hosts) > 0 || o.peer) {
		return usagef("--renew keeps the names of the certificate and what it is for; leave --host and --peer out, or make another one")
	}
	authority, err := certs.OpenAuthority(o.dir)
	if err != nil {
		return &hintedError{err, "Make an authority with 'concord tls ca --dir " + o.dir + "', or name its directory with --dir."}
	}
	cert, key := filepath.Join(o.dir, c.Name+".pem"), filepath.Join(o.dir, c.Name+".key")
	c.Life = o.life
	if !o.renew {
		if err := authority.Issue(cert, key, c); err != nil {
			return err
		}
		_, err := fmt.Fprintf(g.std.out, "%s\n%s\n", cert, key)
		return err
	}
	until, err := authority.Renew(cert, key, o.life)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.std.out, "%s holds until %s\n", cert, until.UTC().Format(time.DateTime+" MST"))
	return err
}
