package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/internal/etcdfile"
	"github.com/concord-kv/concord/internal/migrate"
	"github.com/concord-kv/concord/kv"
)

const importHelp = `Copy keys and leases from an etcd into a running cluster: from a running etcd,
read at one revision, or from a snapshot file (etcdctl snapshot save) or the
file member/snap/db of a member that does not run.

Only what differs is written, so the command can be given again: after an
interruption, or to bring the copy up to date before the cut-over. With --watch
it goes on and follows every change until it is interrupted (Ctrl-C).

Values and leases are carried over, leases under their ids and with their full
TTL from now on; of a running etcd they are renewed here for as long as they
live there. Not carried over: revisions and versions of keys, history, and
passwords. With --auth roles, permissions and users are added; each new user
gets a password that nobody knows, to be set by 'concord user passwd'.`

// importOptions say what is imported.
type importOptions struct {
	endpoint, file string
	prefix         string
	delete         bool
	watch, auth    bool
	user           string
	caFile         string
	certFile       string
	keyFile        string
}

func newImportCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "Copy data from other stores", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImportEtcdCommand(g))
	return cmd
}

func newImportEtcdCommand(g *globals) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "etcd", Short: "Copy keys and leases from an etcd or its snapshot", Long: importHelp, Args: cobra.NoArgs,
		Example: "  concord import etcd --endpoint http://10.0.0.1:2379 --watch\n" +
			"  concord import etcd --file snapshot.db --prefix /registry/ --delete",
	}
	o.addFlags(cmd.Flags())
	g.addClientFlags(cmd.Flags())
	g.addOutputFlag(cmd.Flags(), "value", "value", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := g.checkOutput("value", "json"); err != nil {
			return err
		}
		return runImport(cmd.Context(), g, &o)
	}
	return cmd
}

func (o *importOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.endpoint, "endpoint", "", "addresses of the etcd to read, parted by commas")
	flags.StringVar(&o.file, "file", "", "snapshot to read instead")
	flags.StringVar(&o.prefix, "prefix", "", "copy only keys that begin so")
	flags.BoolVar(&o.delete, "delete", false, "delete keys here that the source does not have (with --prefix, of those)")
	flags.BoolVar(&o.watch, "watch", false, "follow the changes of a running etcd afterwards, until interrupted")
	flags.BoolVar(&o.auth, "auth", false, "add roles, permissions and users of a running etcd")
	flags.StringVar(&o.user, "etcd-user", "", "NAME or NAME:PASSWORD at the etcd (the password also as ETCDCTL_PASSWORD)")
	flags.StringVar(&o.caFile, "etcd-cacert", "", "certificates that the etcd's is checked with, in PEM")
	flags.StringVar(&o.certFile, "etcd-cert", "", "certificate to show the etcd, in PEM")
	flags.StringVar(&o.keyFile, "etcd-key", "", "its private key, in PEM")
}

// source opens what is imported. Remote is nil for a file.
func (o *importOptions) source(ctx context.Context, g *globals) (source migrate.Source, remote *client.Client, closer io.Closer, err error) {
	switch {
	case (o.endpoint == "") == (o.file == ""):
		return nil, nil, nil, usagef("one of --endpoint and --file must be given, as in '--endpoint http://127.0.0.1:2379' or '--file snapshot.db'")
	case o.file != "" && (o.watch || o.auth):
		return nil, nil, nil, usagef("--watch and --auth need a running etcd (--endpoint); --file gives keys and leases")
	case o.file != "":
		f, err := etcdfile.Open(o.file)
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			return nil, nil, nil, fmt.Errorf("--file: %w", path)
		}
		if err != nil {
			return nil, nil, nil, &hintedError{err, "Name a file that 'etcdctl snapshot save' wrote, or the file member/snap/db of a member that does not run."}
		}
		return migrate.FromFile(f), nil, f, nil
	}
	cfg := client.Config{Endpoints: strings.Split(o.endpoint, ","), Timeout: time.Minute, NoRequestIDs: true}
	if cfg.TLS, err = o.tls(); err != nil {
		return nil, nil, nil, err
	}
	if err := o.login(g, &cfg); err != nil {
		return nil, nil, nil, err
	}
	if remote, err = client.New(cfg); err != nil {
		return nil, nil, nil, err
	}
	first, cancel := ctx, context.CancelFunc(func() {})
	if g.timeout > 0 { // later calls are sent again for longer
		first, cancel = context.WithTimeout(ctx, g.timeout)
	}
	defer cancel()
	if source, err = migrate.Live(first, remote); err != nil {
		err = errors.Join(fmt.Errorf("read etcd at %s: %w", o.endpoint, err), remote.Close())
		if kv.CodeOf(err) == kv.Unavailable {
			err = &hintedError{err, "Does that etcd run, and is --endpoint its client address?"}
		}
		return nil, nil, nil, err
	}
	return source, remote, remote, nil
}

func (o *importOptions) tls() (*tls.Config, error) {
	if o.caFile == "" && o.certFile == "" && o.keyFile == "" {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cacert: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--etcd-cacert %s holds no certificate", o.caFile)
		}
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return nil, usagef("--etcd-cert and --etcd-key belong together")
	}
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cert: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (o *importOptions) login(g *globals, cfg *client.Config) (err error) {
	var given bool
	if cfg.User, cfg.Password, given = strings.Cut(o.user, ":"); given || o.user == "" {
		return nil
	}
	if cfg.Password, given = os.LookupEnv("ETCDCTL_PASSWORD"); given {
		return nil
	}
	terminal := terminalOf(g.std.in)
	if terminal == nil {
		return usagef("the password of %s at the etcd is not given; set ETCDCTL_PASSWORD, or use a terminal", cfg.User)
	}
	cfg.Password, err = askPassword(terminal, g.std.err, "Password of "+cfg.User+" at the etcd")
	return err
}

func runImport(ctx context.Context, g *globals, o *importOptions) error {
	source, remote, closer, err := o.source(ctx, g)
	if err != nil {
		return err
	}
	defer closer.Close()
	target, err := g.connect()
	if err != nil {
		return err
	}
	defer target.Close()
	if remote != nil {
		if err := differ(ctx, remote, target); err != nil {
			return err
		}
	}
	done := imported{Revision: source.Revision()}
	if o.auth {
		// First, so that keys are not readable by more here than there.
		if done.Auth, err = migrate.CopyAuth(ctx, remote, target); err != nil {
			return fmt.Errorf("import users and roles: %w", err)
		}
	}
	began := time.Now()
	c, err := o.copyKeys(ctx, g, source, target)
	if err == nil && o.watch {
		fmt.Fprintln(g.std.err, "copied; following changes until interrupted")
		err = o.follow(ctx, g, c)
	}
	done.Summary, done.Seconds = c.Summary(), time.Since(began).Seconds()
	if err != nil {
		s := &done.Summary
		return &hintedError{fmt.Errorf("import: %w", err),
			fmt.Sprintf("%d keys were looked at and %d changes begun; give the command again to go on.", s.Keys, s.Written+s.Deleted+s.Changes)}
	}
	return done.print(g)
}

// differ refuses to copy a cluster to itself.
func differ(ctx context.Context, a, b *client.Client) error {
	x, err := a.Status(ctx, a.Endpoints()[0])
	if err != nil {
		return err
	}
	y, err := b.Status(ctx, b.Endpoints()[0])
	if err != nil {
		return err
	}
	if x.Cluster == y.Cluster {
		return usagef("--endpoint and --endpoints lead to the same cluster, %v; --endpoint is what is read, --endpoints where it goes", x.Cluster)
	}
	return nil
}

// copyKeys copies, with a bar of the keys looked at.
func (o *importOptions) copyKeys(ctx context.Context, g *globals, source migrate.Source, target kv.Store) (*migrate.Copying, error) {
	key, end := []byte(o.prefix), kv.Prefix([]byte(o.prefix))
	if o.prefix == "" {
		key, end = []byte{0}, []byte{0}
	}
	plan := migrate.Plan{From: source, To: target, Prefix: []byte(o.prefix), Delete: o.delete}
	total, err := source.Count(ctx, key, end)
	if err != nil {
		return migrate.New(plan), err
	}
	bar := newCounter(g.std.err, total, "import keys")
	defer bar.Close()
	plan.Progress = bar
	c := migrate.New(plan)
	return c, c.Run(ctx)
}

func (o *importOptions) follow(ctx context.Context, g *globals, c *migrate.Copying) error {
	bar := newCounter(g.std.err, -1, "follow changes")
	defer bar.Close()
	return c.Follow(ctx, func() { _, _ = bar.Write([]byte{0}) }) // a terminal that is gone is no error
}

// imported is the summary that is printed.
type imported struct {
	migrate.Summary
	Revision kv.Revision
	Auth     migrate.AuthSummary
	Seconds  float64
}

func (d *imported) print(g *globals) error {
	s := &d.Summary
	if g.output == "json" {
		return printJSON(g.std.out, map[string]any{
			"read_revision": int64(d.Revision), "revision": int64(s.Revision), "seconds": d.Seconds,
			"keys": s.Keys, "written": s.Written, "unchanged": s.Unchanged, "deleted": s.Deleted, "extra": s.Extra,
			"without_lease": s.Orphans, "leases": s.Leases, "leases_granted": s.Granted, "changes_followed": s.Changes,
			"roles": d.Auth.Roles, "users": d.Auth.Users, "new_users": append([]string{}, d.Auth.NewUsers...),
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "source     revision %d\n", s.Revision)
	fmt.Fprintf(&b, "keys       %d: %d written, %d unchanged; %d others deleted\n", s.Keys, s.Written, s.Unchanged, s.Deleted)
	fmt.Fprintf(&b, "leases     %d: %d granted; each has its full TTL from now on\n", s.Leases, s.Granted)
	if s.Changes > 0 {
		fmt.Fprintf(&b, "followed   %d changes\n", s.Changes)
	}
	if s.Orphans > 0 {
		fmt.Fprintf(&b, "warning    %d keys have no lease here, because the file has them with leases that it does not have\n", s.Orphans)
	}
	if s.Extra > 0 {
		fmt.Fprintf(&b, "extra      %d keys here are not in the source; --delete removes them\n", s.Extra)
	}
	if a := &d.Auth; a.Roles+a.Users > 0 {
		fmt.Fprintf(&b, "auth       %d roles, %d permissions added, %d users\n", a.Roles, a.Permissions, a.Users)
		if len(a.NewUsers) > 0 {
			fmt.Fprintf(&b, "passwords  set them with 'concord user passwd': %s\n", strings.Join(a.NewUsers, ", "))
		}
	}
	fmt.Fprintf(&b, "not kept   revisions and versions of keys, history\n")
	_, err := io.WriteString(g.std.out, b.String())
	return err
}
