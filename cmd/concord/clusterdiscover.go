package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
)

func newClusterDiscoverCommand(g *globals) *cobra.Command {
	var c clusterSettings
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "discover", Short: "Say which clusters and members are in reach, and why one is not seen",
		Long: "Listen, and ask on the local network and where --join says, who is there. With\n" +
			"--cluster and its secret the members of that cluster are shown; others, and those\n" +
			"with another secret, are named with the reason why they do not belong. Without,\n" +
			"only the names of clusters can be heard.\n\n" +
			"No member is needed, and none is disturbed. When nobody is heard the exit code\n" +
			"is 3.",
		Example: "  concord cluster discover\n  concord cluster discover --cluster demo --secret-file secret",
		Args:    cobra.NoArgs,
	}
	formats := []string{"table", "json", "jsonl", "value"}
	flags := cmd.Flags()
	flags.StringVar(&c.Name, "cluster", os.Getenv("CONCORD_CLUSTER"), "name of the cluster (CONCORD_CLUSTER)")
	flags.StringVar(&c.SecretFile, "secret-file", os.Getenv("CONCORD_SECRET_FILE"), "file with its secret (CONCORD_SECRET_FILE; or the secret itself in CONCORD_SECRET)")
	flags.StringSliceVar(&c.Join, "join", nil, "peer addresses to ask, as HOST or HOST:PORT")
	flags.StringSliceVar(&c.JoinDNS, "join-dns", nil, "names in DNS with the addresses of members")
	flags.BoolVar(&c.NoMulticast, "no-multicast", false, "ask only where --join and --join-dns say")
	flags.DurationVar(&timeout, "timeout", 3*time.Second, "how long to look")
	g.addOutputFlag(flags, formats[0], formats...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := g.checkOutput(formats...); err != nil {
			return err
		}
		if timeout <= 0 {
			return usagef("--timeout %v is not positive; look for some seconds", timeout)
		}
		if c.SecretFile == "" {
			c.Secret = os.Getenv("CONCORD_SECRET")
		}
		return g.discover(cmd.Context(), &c, timeout)
	}
	return cmd
}

func (g *globals) discover(ctx context.Context, c *clusterSettings, timeout time.Duration) error {
	switch err := c.readSecret("dev"); {
	case err != nil:
		return err
	case c.Name == "" && c.SecretFile+strings.Join(append(c.Join, c.JoinDNS...), "") != "":
		return usagef("--secret-file, --join and --join-dns are of no use without --cluster; name the cluster")
	case c.Name == "":
		c.Secret = ""
	case c.Secret == "":
		return usagef("the secret of cluster %s is not given; give --secret-file, or leave --cluster out to hear names only", c.Name)
	}
	options := c.options(&serveSettings{})
	if c.Name == "" && c.NoMulticast {
		return usagef("with --no-multicast and without --join nobody is asked; leave it out")
	}
	done := g.busy("look for members")
	s, err := concord.Survey(ctx, timeout, options...)
	done()
	if err != nil {
		return err
	}
	if c.Name == "" {
		for i := range s.Neighbours { // no cluster was looked for that it could belong to
			s.Neighbours[i].Stranger = "there; --cluster and its secret show its members"
		}
	}
	if err := g.printSurroundings(&s); err != nil {
		return err
	}
	if len(s.Neighbours) == 0 {
		fmt.Fprintf(g.std.err, "concord: nobody was heard in %v\n  Does multicast reach them? Name the peer address of one with --join.\n", timeout)
		return &silentError{exitNotFound}
	}
	return nil
}

// jsonNeighbour is one process in JSON.
type jsonNeighbour struct {
	Cluster     string   `json:"cluster"`
	Belongs     bool     `json:"belongs"`
	Reason      string   `json:"reason,omitempty"`
	ID          string   `json:"id,omitempty"`
	Name        string   `json:"name,omitempty"`
	ClusterID   string   `json:"cluster_id,omitempty"`
	PeerAddrs   []string `json:"peer_addrs,omitempty"`
	ClientAddrs []string `json:"client_addrs,omitempty"`
	Version     string   `json:"version,omitempty"`
	From        string   `json:"from,omitempty"`
	Source      string   `json:"source"`
}

func toJSONNeighbour(n *concord.Neighbour) jsonNeighbour {
	out := jsonNeighbour{
		Cluster: n.Cluster, Belongs: n.Stranger == "" && n.Member != 0, Reason: n.Stranger, Name: n.Name,
		PeerAddrs: n.PeerAddrs, ClientAddrs: n.ClientAddrs, Version: n.Version, From: n.From, Source: n.Source,
	}
	if n.Member != 0 {
		out.ID = n.Member.String()
	}
	if n.ClusterID != 0 {
		out.ClusterID = n.ClusterID.String()
	}
	return out
}

func (g *globals) printSurroundings(s *concord.Surroundings) error {
	all := make([]jsonNeighbour, len(s.Neighbours))
	rows := make([][]string, len(s.Neighbours))
	for i := range s.Neighbours {
		n := &s.Neighbours[i]
		all[i] = toJSONNeighbour(n)
		state, at := n.Stranger, n.From
		switch {
		case n.Stranger != "":
		case n.ClusterID == 0:
			state = "waits for a cluster"
		default:
			state = "belongs to " + n.ClusterID.String()
		}
		if len(n.PeerAddrs) > 0 {
			at = n.PeerAddrs[0]
		}
		rows[i] = []string{n.Cluster, dash(n.Name), state, dash(at)}
	}
	switch g.output {
	case "json":
		return printJSON(g.std.out, map[string]any{"processes": all, "problems": append([]string{}, s.Problems...)})
	case "jsonl":
		return printLines(g.std.out, all)
	case "value":
		for i := range all {
			fmt.Fprintln(g.std.out, rows[i][3])
		}
		return nil
	}
	// Of strangers nobody knows how many there are at one place.
	rows = slices.CompactFunc(rows, slices.Equal)
	if len(rows) > 0 {
		if err := printTable(g.std.out, []string{"CLUSTER", "NAME", "STATE", "AT"}, rows); err != nil {
			return err
		}
	}
	for _, p := range s.Problems {
		fmt.Fprintf(g.std.err, "%s\n", p)
	}
	return nil
}
