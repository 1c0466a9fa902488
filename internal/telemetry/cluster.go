package telemetry

import (
	"math"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// The parts of the documentation.
const (
	topicCluster = "The cluster"
	topicPeers   = "Between members"
	topicCalls   = "Calls"
	topicLog     = "Log and disk"
	topicState   = "State and memory"
	topicCopies  = "Snapshots and backups"
	topicWatches = "Watches"
	topicLeases  = "Leases and keys that end by time"
	topicAccess  = "Access"
	topicServer  = "The server"
	topicEtcd    = "Under etcd's names"
)

// clusterFamilies are of the cluster, its members, and calls.
var clusterFamilies = []Family{
	{
		Name: "concord_info", Help: "1, with version, name and id of the member as labels.", Kind: Gauge, Topic: topicCluster,
		Labels: []string{"version", "name", "member", "cluster"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			put(1, s.status.Version, s.member.Name, s.status.Member.String(), s.status.Cluster.String())
		},
	},
	{
		Name: "concord_role", Help: "1 for the role that the member has in Raft, 0 for the others.", Kind: Gauge, Topic: topicCluster, Labels: []string{"role"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			for r := kv.Follower; r <= kv.LearnerRole; r++ {
				put(oneIf(s.status.Role == r), r.String())
			}
		},
	},
	{
		Name: "concord_leader_known", Help: "Whether the member knows a leader.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return oneIf(s.status.Leader != 0) },
	},
	{
		Name: "concord_leader_changes_total", Help: "How often the member found a leader that was not the one known before.", Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.member.LeaderChanges) },
	},
	{
		Name: "concord_up_seconds", Help: "How long the member has been running.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return s.member.UpTime.Seconds() },
	},
	{
		Name: "concord_term", Help: "The Raft term that this member is in.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.status.Term) },
	},
	{
		Name: "concord_committed_index", Help: "The last entry of the log that this member knows to be committed.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.status.Committed) },
	},
	{
		Name: "concord_applied_index", Help: "The last entry of the log that this member has applied.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.status.Applied) },
	},
	{
		Name: "concord_revision", Help: "The revision of the store at this member.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.status.Revision) },
	},
	{
		Name: "concord_cluster_time_seconds", Help: "Cluster time, by which leases and TTLs end; it stands still while there is no leader, and where nothing is written.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.status.Time) / 1000 },
	},
	{
		Name: "concord_clock_seconds", Help: "This machine's clock, as Unix time. Only certificates and JSON Web Tokens depend on it.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.now.UnixNano()) / 1e9 },
	},
	{
		Name: "concord_voters", Help: "Members that vote.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.member.Members.Voters) },
	},
	{
		Name: "concord_voters_connected", Help: "Members that vote and that this member is connected with, itself too.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.member.Members.Reached) },
	},
	{
		Name: "concord_learners", Help: "Members that do not vote.", Kind: Gauge, Topic: topicCluster,
		one: func(s *sample) float64 { return float64(s.member.Members.Learners) },
	},
	{
		Name: "concord_membership_changes_total", Help: "Changes of the membership that this member has applied, by kind.", Topic: topicCluster, Labels: []string{"change"},
		each: counts(membersAdded, "added", "promoted", "removed", "updated"),
	},
	{
		Name: "concord_alarm", Help: "How many members an alarm is raised for.", Kind: Gauge, Topic: topicCluster, Labels: []string{"alarm"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			for _, t := range [...]kv.AlarmType{kv.AlarmNoSpace, kv.AlarmCorrupt, kv.AlarmDivergent} {
				n := 0.0
				for _, a := range s.member.Alarms {
					n += oneIf(a.Type == t)
				}
				put(n, t.String())
			}
		},
	},
	{
		Name: "concord_discovery_processes", Help: "What discovery has heard of: processes of this cluster, strangers that do not belong to it, and ways of finding others that do not work now.",
		Kind: Gauge, Topic: topicCluster, Labels: []string{"kind"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			m := &s.member.Members
			put(float64(m.Known), "known")
			put(float64(m.Strangers), "stranger")
			put(float64(m.Problems), "problem")
		},
	},

	{
		Name: "concord_peer_connected", Help: "Whether this member is connected with another.", Kind: Gauge, Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return oneIf(p.Connected) }),
	},
	{
		Name: "concord_peer_silent_seconds", Help: "Since when nothing was heard of another member.", Kind: Gauge, Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return p.Silent.Seconds() }),
	},
	{
		Name: "concord_peer_round_trip_seconds", Help: "How long pings to another member took, there and back.", Kind: Histogram, Topic: topicPeers, Labels: peerLabel,
		spread: func(s *sample, put func(d *kv.Durations, labels ...string)) {
			for i := range s.member.Peers {
				put(&s.member.Peers[i].RoundTrips, peerName(&s.member.Peers[i]))
			}
		},
	},
	{
		Name: "concord_peer_sent_bytes_total", Help: "Bytes of messages sent to another member.", Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return float64(p.Sent) }),
	},
	{
		Name: "concord_peer_received_bytes_total", Help: "Bytes of messages received from another member.", Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return float64(p.Received) }),
	},
	{
		Name: "concord_peer_queue_bytes", Help: "Bytes that wait to be sent to another member.", Kind: Gauge, Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return float64(p.Queued) }),
	},
	{
		Name: "concord_peer_dropped_messages_total", Help: "Messages that were not sent to another member, because it was not connected or the queue was full.", Topic: topicPeers, Labels: peerLabel,
		each: byPeer(func(p *kv.PeerFigures) float64 { return float64(p.Dropped) }),
	},
	{
		Name: "concord_peer_lag_entries", Help: "Committed entries that another member has not acknowledged; on the leader only.", Kind: Gauge, Topic: topicPeers, Labels: peerLabel,
		each: func(s *sample, put func(v float64, labels ...string)) {
			for i := range s.member.Peers {
				if p := &s.member.Peers[i]; p.Lag >= 0 {
					put(float64(p.Lag), peerName(p))
				}
			}
		},
	},
	{
		Name: "concord_peer_disconnects_total", Help: "Connections with other members that were lost.", Topic: topicPeers, one: count(disconnects),
	},
	{
		Name: "concord_peer_bad_messages_total", Help: "Messages of other members that made no sense.", Topic: topicPeers,
		one: func(s *sample) float64 { return float64(s.member.BadMessages) },
	},

	{
		Name: "concord_api_calls_total", Help: "Calls of the member, by operation and result: from gRPC, HTTP and the program around it.", Topic: topicCalls, Labels: []string{"operation", "result"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			for op := 1; op <= observe.Ops; op++ {
				for r, name := range resultNames {
					if n := s.events.ops[op].results[r].Load(); n > 0 || r == 0 {
						put(float64(n), observe.Op(op).String(), name)
					}
				}
			}
		},
	},
	{
		Name: "concord_api_seconds", Help: "How long calls of the member took, by operation; a watch until it was established.", Kind: Histogram, Topic: topicCalls, Labels: []string{"operation"},
		spread: func(s *sample, put func(d *kv.Durations, labels ...string)) {
			for op := 1; op <= observe.Ops; op++ {
				if d := s.events.ops[op].took.Load(); d.Count() > 0 {
					put(&d, observe.Op(op).String())
				}
			}
		},
	},
	{
		Name: "concord_write_phase_seconds", Help: "Where a write spends its time: waiting to be packed into an entry, until that is durable here, until a majority has it, until it is applied, until the caller is answered.",
		Kind: Histogram, Topic: topicCalls, Labels: []string{"phase"},
		spread: func(s *sample, put func(d *kv.Durations, labels ...string)) {
			for i, name := range phaseNames {
				d := s.events.phases[i].Load()
				put(&d, name)
			}
		},
	},
	{
		Name: "concord_proposals_waiting", Help: "Writes of this member's callers that wait for a majority.", Kind: Gauge, Topic: topicCalls,
		one: func(s *sample) float64 { return float64(s.member.Proposals.Waiting) },
	},
	{
		Name: "concord_proposals_waiting_bytes", Help: "Bytes of those writes.", Kind: Gauge, Topic: topicCalls,
		one: func(s *sample) float64 { return float64(s.member.Proposals.WaitingBytes) },
	},
	{
		Name: "concord_proposals_failed_total", Help: "Writes that failed for want of a leader, of time or of room, some of them perhaps after they took effect.", Topic: topicCalls,
		one: func(s *sample) float64 { return float64(s.events.unproposed.Load()) },
	},
	{
		Name: "concord_read_keys_total", Help: "Keys that reads have found.", Topic: topicCalls,
		one: func(s *sample) float64 { return float64(s.events.keys.Load()) },
	},
}

// peerLabel is the other member: its name, or its id where it has none.
var peerLabel = []string{"peer"}

func peerName(p *kv.PeerFigures) string {
	if p.Name != "" {
		return p.Name
	}
	return p.Member.String()
}

// byPeer puts a value of each other member.
func byPeer(value func(p *kv.PeerFigures) float64) func(s *sample, put func(v float64, labels ...string)) {
	return func(s *sample, put func(v float64, labels ...string)) {
		for i := range s.member.Peers {
			put(value(&s.member.Peers[i]), peerName(&s.member.Peers[i]))
		}
	}
}

// count reads one count of events, counts several that follow on another.
func count(which int) func(s *sample) float64 {
	return func(s *sample) float64 { return float64(s.events.counts[which].Load()) }
}

func counts(first int, names ...string) func(s *sample, put func(v float64, labels ...string)) {
	return func(s *sample, put func(v float64, labels ...string)) {
		for i, name := range names {
			put(float64(s.events.counts[first+i].Load()), name)
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// certain leaves out what is not known: less than 0.
func certain(v int64) float64 {
	if v < 0 {
		return math.NaN()
	}
	return float64(v)
}
