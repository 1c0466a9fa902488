package discovery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Findings are what [Survey] heard.
type Findings struct {
	// Known are the processes of the cluster, by id.
	Known []Sighting
	// Strangers are the others that could be heard.
	Strangers []Stranger
	// Conflicts are what must not be.
	Conflicts []Conflict
	// Problems are what did not work: seeds that do not answer or refuse, names
	// that are not there, interfaces without multicast.
	Problems []Problem
}

// Survey listens for d and asks everyone at once who is there, without being one
// of them: Self, Handler and Gossip of cfg are not used. It works beside
// processes of the cluster on the same machine. Without Cluster and Seal it still
// hears the names of clusters. It ends early, without an error, when ctx does.
func Survey(ctx context.Context, cfg Config, d time.Duration) (Findings, error) {
	if !speakable(cfg.Cluster) {
		return Findings{}, fmt.Errorf("cluster name %q: it has at most %d bytes of printable text", cfg.Cluster, MaxName)
	}
	if (cfg.Cluster == "") != (cfg.Seal == nil) {
		return Findings{}, errors.New("a survey needs the name of the cluster and its secret, or neither")
	}
	cfg.Self, cfg.Handler, cfg.Gossip = nil, nil, Gossip{Off: true}
	found, err := newDiscovery(cfg)
	if err != nil {
		return Findings{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err = found.Run(ctx)
	return Findings{found.Known(), found.Strangers(), found.board.quarrels(), found.Problems()}, err
}
