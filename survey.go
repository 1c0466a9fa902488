package concord

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/concord-kv/concord/internal/discovery"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// Neighbour is a process that a [Survey] has heard of.
type Neighbour struct {
	// Cluster is the name that it gives for its cluster.
	Cluster string
	// Stranger says why it is not one of the cluster that was looked for; empty
	// for one that is. Of a stranger only Cluster, From and Source are known.
	Stranger string
	// Member and Name are its own. ClusterID is 0 while it waits for a cluster
	// to be founded, or to be let in.
	Member                 kv.MemberID
	Name                   string
	ClusterID              kv.ClusterID
	PeerAddrs, ClientAddrs []string
	Version                string
	// From is where it was heard, Source by what: multicast4, multicast6 or
	// seeds.
	From, Source string
}

// Surroundings is what a [Survey] has found.
type Surroundings struct {
	// Neighbours are in order of their ids, strangers last.
	Neighbours []Neighbour
	// Problems say what did not work, such as addresses where nobody answers,
	// and what must not be, such as two clusters of one name.
	Problems []string
}

// Survey looks for d who is there, without being a member. The options are
// [Cluster] and [Secret], as members have them; without them only the names of
// clusters can be heard. It ends early, without an error, when ctx does.
func Survey(ctx context.Context, d time.Duration, opts ...Option) (out Surroundings, err error) {
	cfg := config{ears: ears{logger: slog.New(slog.DiscardHandler)}}
	for _, opt := range opts {
		opt(&cfg)
	}
	cfg.limits = cfg.limits.WithDefaults()
	g := &cfg.group
	if g.name == "" && g.secret != "" {
		return out, kv.Errorf(kv.InvalidArgument, "a secret is given and no cluster; name the cluster")
	}
	if err := g.check(&cfg); err != nil {
		return out, err
	}
	n := &Node{cfg: cfg, log: cfg.logger, figures: new(figures)}
	n.transport = n.newTransport(memberfile.File{ID: randomID()}, nil, nil) // to ask only
	look := discovery.Config{
		Cluster: g.name, Multicast: discovery.Multicast{Off: g.unicast},
		Seeds: discovery.Seeds{Addrs: g.seeds, DNS: g.dns, File: g.seedsFile},
		Ask:   n.askWho, Logger: n.log,
	}
	if g.keys != nil {
		look.Seal, look.GossipKeys = g.keys.Beacon(), g.keys.Gossip()
	}
	found, err := discovery.Survey(ctx, look, d)
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return out, kv.Errorf(kv.InvalidArgument, "%w", err)
	}
	return surroundings(&found), nil
}

func surroundings(f *discovery.Findings) (out Surroundings) {
	for _, s := range f.Known {
		out.Neighbours = append(out.Neighbours, Neighbour{
			Cluster: s.Cluster, Member: kv.MemberID(s.ID), Name: s.Name, ClusterID: kv.ClusterID(s.ClusterID),
			PeerAddrs: s.PeerAddrs, ClientAddrs: s.ClientAddrs, Version: s.Version, From: s.From, Source: s.Source,
		})
	}
	for _, s := range f.Strangers {
		out.Neighbours = append(out.Neighbours, Neighbour{Cluster: s.Cluster, Stranger: string(s.Reason), From: s.Addr, Source: s.Source})
	}
	for _, c := range f.Conflicts {
		out.Problems = append(out.Problems, fmt.Sprintf("%s: %s (%v) and %s (%v)", c.Kind, c.A.Name, kv.ClusterID(c.A.ClusterID), c.B.Name, kv.ClusterID(c.B.ClusterID)))
	}
	for _, p := range f.Problems {
		what := p.Source
		if p.Target != "" {
			what += " " + p.Target
		}
		why := p.Err.Error()
		if stranger := (x509.UnknownAuthorityError{}); errors.As(p.Err, &stranger) {
			why = "what answers there has another secret, or is no member"
		}
		out.Problems = append(out.Problems, what+": "+why)
	}
	return out
}
