package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certs"
)

// clusterSettings say how a member finds the others of its cluster by itself.
type clusterSettings struct {
	Name        string   `set:"cluster" usage:"name of the cluster to form or join; the others are found by it, with the secret"`
	Secret      string   `set:"secret" usage:"what all members know and nobody else (see 'concord secret'); in prod give a file or CONCORD_SECRET"`
	SecretFile  string   `set:"secret-file" usage:"file with the secret, or several, one a line: the first is used, all are accepted; read again when it changes"`
	Expect      int      `set:"expect" usage:"how many members found the cluster: more than half of all that are started without data (default 3)"`
	Join        []string `set:"join" usage:"peer addresses of members, as HOST or HOST:PORT, where multicast does not reach; one is enough"`
	JoinDNS     []string `set:"join-dns" usage:"names in DNS with the addresses of members (A, AAAA, or SRV of _concord-peer._tcp.NAME)"`
	JoinFile    string   `set:"join-file" usage:"file with a peer address in each line, read again when it changes"`
	Advertise   []string `set:"peer-advertise" usage:"addresses at which other members reach this one (default: those of this machine)"`
	GossipAddr  string   `set:"gossip-addr" usage:"address for gossip, TCP and UDP (default port 7946, or any free one)"`
	NoMulticast bool     `set:"no-multicast" usage:"look for others only where --join, --join-dns and --join-file say"`

	listener net.Listener // for other members, when takePlace has found it
	exposed  error        // who else may read the file with the secret
}

// check tells what is wrong, and fills what depends on other settings.
func (c *clusterSettings) check(s *serveSettings) error {
	if c.Name == "" {
		for flag, given := range map[string]bool{
			"--expect": c.Expect != 0, "--join": len(c.Join) > 0, "--join-dns": len(c.JoinDNS) > 0, "--join-file": c.JoinFile != "",
			"--gossip-addr": c.GossipAddr != "", "--peer-advertise": len(c.Advertise) > 0, "--no-multicast": c.NoMulticast,
		} {
			if given {
				return usagef("%s is of no use without --cluster; name the cluster", flag)
			}
		}
	}
	if c.Name != "" && len(s.Peers.All) > 0 {
		return usagef("--cluster and --peers exclude each other: a cluster is found by its name, or listed")
	}
	if err := c.readSecret(s.Env); err != nil {
		return err
	}
	if c.Name == "" {
		return nil
	}
	if c.Secret == "" {
		return usagef("--cluster %s needs a secret, or anybody could join; run 'concord secret secret' once, copy the file to all members, and give it with --secret-file", c.Name)
	}
	if c.Name != strings.TrimSpace(c.Name) || strings.ContainsAny(c.Name, "/\\=,\x00") || c.Name == "." || c.Name == ".." {
		return usagef("--cluster %q is no name; use letters, digits and dashes", c.Name)
	}
	for flag, addr := range map[string]string{"--peer-addr": s.Peers.Addr, "--gossip-addr": c.GossipAddr} {
		_, port, err := net.SplitHostPort(addr)
		if _, perr := strconv.ParseUint(port, 10, 16); addr != "" && (err != nil || perr != nil) {
			return usagef("%s %q is no HOST:PORT; write it as :2380 or 10.0.0.1:2380", flag, addr)
		}
	}
	if s.Env == "dev" && s.Name == "" && s.DataDir == "" && s.ClientAddr == "" && s.Peers.Addr == "" {
		return c.takePlace(s)
	}
	if s.Name == "" && s.DataDir == "" {
		host, err := os.Hostname()
		if err != nil {
			return usagef("this host has no name (%w); give the member one with --name", err)
		}
		s.Name, _, _ = strings.Cut(host, ".")
	}
	s.Peers.Addr = cmp.Or(s.Peers.Addr, ":2380")
	return nil
}

// readSecret takes the secret from its file.
func (c *clusterSettings) readSecret(env string) error {
	switch {
	case c.SecretFile != "" && c.Secret != "":
		return usagef("--secret and --secret-file (or CONCORD_SECRET) exclude each other; keep the file")
	case c.Secret != "" && env == "prod" && os.Getenv("CONCORD_SECRET") != c.Secret:
		return usagef("--secret shows the secret to everyone who lists processes; in prod give --secret-file, or set CONCORD_SECRET")
	case c.SecretFile == "":
		return nil
	}
	data, err := os.ReadFile(c.SecretFile)
	if err != nil {
		return usagef("--secret-file: %w; make one with 'concord secret %s', the same on all members", err, c.SecretFile)
	}
	if c.exposed = certs.CheckSecret(c.SecretFile); c.exposed != nil && env == "prod" {
		return usagef("--secret-file: %w", c.exposed)
	}
	if c.Secret = strings.TrimSpace(string(data)); c.Secret == "" {
		return usagef("--secret-file: %s is empty; make a secret with 'concord secret %[1]s', the same on all members", c.SecretFile)
	}
	return nil
}

// Places are where the members that are started on one machine with one command
// line stand: each has the next ports, and a directory of its own.
const (
	places    = 10
	placeStep = 100
)

// takePlace finds the first place that no other process has. It is kept by
// listening there.
func (c *clusterSettings) takePlace(s *serveSettings) error {
	host, err := os.Hostname()
	if err != nil {
		host = "n"
	}
	host, _, _ = strings.Cut(host, ".")
	for i := range places {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", 2380+i*placeStep))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return fmt.Errorf("--peer-addr: %w", err)
		}
		c.listener, s.Peers.Addr = l, l.Addr().String()
		s.Name, s.ClientAddr = host, fmt.Sprintf("127.0.0.1:%d", 2379+i*placeStep)
		if i > 0 {
			s.Name = fmt.Sprintf("%s-%d", host, i+1)
		}
		return nil
	}
	return usagef("the ports 2380, 2480, … for %d members on this machine are all in use; give --peer-addr, --client-addr and --data-dir", places)
}

// options are those of the library.
func (c *clusterSettings) options(s *serveSettings) []concord.Option {
	var opts []concord.Option
	switch {
	case c.SecretFile != "":
		opts = append(opts, concord.SecretFile(c.SecretFile))
	case c.Secret != "":
		opts = append(opts, concord.Secret(c.Secret))
	}
	if c.Name == "" {
		return opts
	}
	how := []concord.ClusterOption{
		concord.Size(c.Expect), concord.Join(c.Join...), concord.JoinDNS(c.JoinDNS...), concord.JoinFile(c.JoinFile),
		concord.Listen(s.Peers.Addr, c.Advertise...), concord.Gossip(c.GossipAddr),
	}
	if c.NoMulticast {
		how = append(how, concord.NoMulticast())
	}
	if c.listener != nil {
		opts = append(opts, concord.PeerListener(c.listener))
		c.listener = nil // the next time it has to be opened again
	}
	return append(opts, concord.Cluster(c.Name, how...))
}

func newSecretCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "secret [FILE]", Short: "Make a secret for a cluster",
		Long: "Print a new secret of 130 random bits, or write it to a new file that only you can\n" +
			"read. All members of a cluster have the same one; whoever has it can join and read\n" +
			"everything.",
		Example: "  concord secret secret",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return certs.WriteNew(args[0], []byte(concord.NewSecret()+"\n"), 0o600)
			}
			_, err := fmt.Fprintln(g.std.out, concord.NewSecret())
			return err
		},
	}
}
