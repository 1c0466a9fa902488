package concord

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// Settings hold for the whole cluster and are replicated.
type Settings struct {
	// LeaderReads lets the leader serve reads at [kv.Leader] from its lease,
	// without asking a majority. They are linearizable while the rates of the
	// members' clocks differ by less than one part in eight. Default off.
	LeaderReads bool
	// Retention is how long history is kept for reads at older revisions and
	// for watches that resume; default 10 minutes.
	Retention time.Duration
	// HistoryBytes is how much history is kept at most, where the live keys
	// take less; default 256 MiB.
	HistoryBytes int64
	// Autopilot lets the leader tend the membership: it promotes learners, and
	// has dead members replaced; see docs/OPERATIONS.md. Default on; it has no
	// effect in a cluster that people run [ByHand].
	Autopilot bool
	// Voters is how many voters the leader tries to have, an odd number. 0, the
	// default, means 3, or 5 where 5 or more have founded the cluster.
	Voters int
	// DeadAfter is how long a member must be silent before another may take
	// its place, in whole milliseconds, at least 1s; 0 means the default, 5
	// minutes.
	DeadAfter time.Duration
}

// Settings returns the settings as this member has applied them.
func (n *Node) Settings() Settings {
	s := n.machine.Settings()
	return Settings{
		LeaderReads: s.LeaderReads, Retention: s.Retention, HistoryBytes: s.HistoryBytes,
		Autopilot: s.Autopilot, Voters: s.Voters, DeadAfter: s.DeadAfter,
	}
}

// SetSettings replaces the settings.
func (n *Node) SetSettings(ctx context.Context, s Settings) error {
	if s.Retention < 0 || s.Retention > kv.MaxTTL || s.HistoryBytes < 0 {
		return kv.Errorf(kv.InvalidArgument, "retention of %v and %d bytes is out of range; use 0 to %v, and bytes that are not negative", s.Retention, s.HistoryBytes, kv.MaxTTL)
	}
	if s.Voters < 0 || s.Voters > machine.MaxVoters || s.Voters%2 == 0 && s.Voters != 0 {
		return kv.Errorf(kv.InvalidArgument, "%d voters cannot be wanted; use an odd number up to %d, best 3 or 5, or 0 for the default: an even number survives no more failures than one less", s.Voters, machine.MaxVoters)
	}
	s.DeadAfter = cmp.Or(s.DeadAfter, machine.DefaultSettings().DeadAfter)
	if s.DeadAfter < time.Second || s.DeadAfter > kv.MaxTTL {
		return kv.Errorf(kv.InvalidArgument, "members cannot count as dead after %v; use 1s to %v", s.DeadAfter, kv.MaxTTL)
	}
	_, err := n.headerCommand(ctx, func(dst []byte) []byte {
		return machine.EncodeSettings(dst, machine.SettingsChange{
			LeaderReads: &s.LeaderReads, Retention: &s.Retention, HistoryBytes: &s.HistoryBytes,
			Autopilot: &s.Autopilot, Voters: &s.Voters, DeadAfter: &s.DeadAfter,
		})
	})
	return err
}

// followSettings has the replica do what the settings say, for as long as the
// member runs.
func (n *Node) followSettings(ctx context.Context) error {
	leases := n.recall().ReadLease
	for {
		changed := n.machine.Reconfigured()
		if on := n.machine.Settings().LeaderReads; on != leases {
			// A member must not forget across a restart that it may have
			// promised not to vote: the file is written before leases are
			// switched on, and after they are switched off.
			if !on {
				n.replica.SetReadLease(false)
				select { // a promise may still run
				case <-ctx.Done():
					return nil
				case <-time.After(n.cfg.election):
				}
			}
			if err := n.remember(func(f *memberfile.File) { f.ReadLease = on }); err != nil {
				return fmt.Errorf("remember that leases are switched: %w", err)
			}
			if on {
				n.replica.SetReadLease(true)
			}
			leases = on
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
