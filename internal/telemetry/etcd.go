package telemetry

import (
	"runtime"
	"strings"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// etcdFamilies are metrics under the names of etcd's, with its help, kinds and
// labels, and values that are true here. Where etcd means something that
// Concord has not, docs/TELEMETRY.md says what is counted instead.
// Source: etcd 3.7, server/etcdserver, server/storage, server/lease.
var etcdFamilies = append([]Family{
	etcd(Gauge, "etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", func(s *sample) float64 { return oneIf(s.status.Leader != 0) }),
	etcd(Gauge, "etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", func(s *sample) float64 { return oneIf(s.status.Role == kv.LeaderRole) }),
	etcd(Gauge, "etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", func(s *sample) float64 { return oneIf(s.status.Role == kv.LearnerRole) }),
	etcd(Counter, "etcd_server_leader_changes_seen_total", "The number of leader changes seen.", func(s *sample) float64 { return float64(s.member.LeaderChanges) }),
	etcdInfo("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", "server_id", func(s *sample) string { return s.status.Member.String() }),
	etcdInfo("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", func(s *sample) string { return s.server.EtcdVersion }),
	etcdInfo("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", "server_go_version", func(*sample) string { return runtime.Version() }),
	etcdInfo("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "cluster_version", func(s *sample) string {
		return s.server.EtcdVersion[:max(0, strings.LastIndexByte(s.server.EtcdVersion, '.'))]
	}),
	etcd(Gauge, "etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", func(s *sample) float64 { return float64(s.status.Committed) }),
	etcd(Gauge, "etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", func(s *sample) float64 { return float64(s.status.Applied) }),
	etcd(Gauge, "etcd_server_proposals_pending", "The current number of pending proposals to commit.", func(s *sample) float64 { return float64(s.member.Proposals.Waiting) }),
	etcd(Counter, "etcd_server_proposals_failed_total", "The total number of failed proposals seen.", func(s *sample) float64 { return float64(s.events.unproposed.Load()) }),
	etcd(Counter, "etcd_server_slow_apply_total", "The total number of slow apply requests (likely overloaded from slow disk).", func(s *sample) float64 { return float64(s.member.Apply.Slow) }),
	etcd(Counter, "etcd_server_heartbeat_send_failures_total", "The total number of leader heartbeat send failures (likely overloaded from slow disk).", func(s *sample) (n float64) {
		for i := range s.member.Peers {
			n += float64(s.member.Peers[i].Urgent)
		}
		return n
	}),
	etcd(Counter, "etcd_server_health_success", "The total number of successful health checks", func(s *sample) float64 { return float64(s.server.Healthy) }),
	etcd(Counter, "etcd_server_health_failures", "The total number of failed health checks", func(s *sample) float64 { return float64(s.server.Unhealthy) }),
	{
		Name: "etcd_server_quota_backend_bytes", Help: "Current backend storage quota size in bytes.", Kind: Gauge, Topic: topicEtcd,
		each: func(s *sample, put func(v float64, labels ...string)) {
			if s.server.Quota > 0 {
				put(float64(s.server.Quota))
			}
		},
	},
	etcdTimes("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", func(s *sample) *kv.Durations { return &s.member.Log.Writes }),
	etcdTimes("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", func(s *sample) *kv.Durations { return &s.member.Apply.Batches }),
	etcdTimes("etcd_snap_db_save_total_duration_seconds", "The total latency distributions of v3 snapshot save", func(s *sample) *kv.Durations { return &s.member.Snapshots.Taken }),
	etcd(Gauge, "etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", count(logBytes)),
	etcd(Counter, "etcd_mvcc_put_total", "Total number of puts seen by this member.", func(s *sample) float64 { return float64(s.member.State.Puts) }),
	etcd(Counter, "etcd_mvcc_delete_total", "Total number of deletes seen by this member.", func(s *sample) float64 { return float64(s.member.State.Deletes) }),
	etcd(Counter, "etcd_mvcc_range_total", "Total number of ranges seen by this member.", calls(observe.OpGet, observe.OpGetMany, observe.OpRange)),
	etcd(Counter, "etcd_mvcc_txn_total", "Total number of txns seen by this member.", calls(observe.OpTxn, observe.OpPutIf, observe.OpDeleteIf, observe.OpPutMany, observe.OpDeleteMany)),
	etcd(Gauge, "etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", func(s *sample) float64 { return float64(s.status.MemoryBytes) }),
	etcd(Gauge, "etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", func(s *sample) float64 { return float64(s.status.LiveBytes) }),
	etcd(Gauge, "etcd_debugging_mvcc_keys_total", "Total number of keys.", func(s *sample) float64 { return float64(s.status.Keys) }),
	etcd(Gauge, "etcd_debugging_mvcc_current_revision", "The current revision of store.", func(s *sample) float64 { return float64(s.status.Revision) }),
	etcd(Gauge, "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", func(s *sample) float64 { return float64(s.status.CompactRevision) }),
	etcd(Gauge, "etcd_debugging_mvcc_db_compaction_last", "The unix time of the last db compaction. Resets to 0 on start.", moment(lastCompaction)),
	etcd(Gauge, "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", func(s *sample) float64 { return float64(s.member.Watches.Open) }),
	etcd(Gauge, "etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", func(s *sample) float64 { return float64(s.member.Watches.Behind) }),
	etcd(Counter, "etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", count(watchEvents)),
	etcd(Counter, "etcd_debugging_lease_granted_total", "The total number of granted leases.", count(leasesGranted)),
	etcd(Counter, "etcd_debugging_lease_revoked_total", "The total number of revoked leases.", count(leasesRevoked)),
	etcd(Counter, "etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader.", count(leasesRenewed)),
	etcd(Counter, "etcd_debugging_server_lease_expired_total", "The total number of expired leases.", count(leasesExpired)),
	etcd(Counter, "etcd_debugging_store_watch_requests_total", "Total number of incoming watch requests (new or reestablished).", count(watchesCreated)),
	etcd(Gauge, "etcd_debugging_store_watchers", "Count of currently active watchers.", func(s *sample) float64 { return float64(s.member.Watches.Open) }),
	etcd(Counter, "etcd_debugging_store_expires_total", "Total number of expired keys.", count(keysExpired)),
	{
		Name: "etcd_debugging_store_reads_total", Help: "Total number of reads action by (get/getRecursive), local to this member.", Topic: topicEtcd, Labels: []string{"action"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			put(calls(observe.OpGet)(s), "get")
			put(calls(observe.OpGetMany, observe.OpRange)(s), "getRecursive")
		},
	},
	{
		Name: "etcd_debugging_store_writes_total", Help: "Total number of writes (e.g. set/compareAndDelete) seen by this member.", Topic: topicEtcd, Labels: []string{"action"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			put(float64(s.member.State.Puts), "set")
			put(float64(s.member.State.Deletes), "delete")
		},
	},
	{
		Name: "etcd_debugging_server_alarms", Kind: Gauge, Topic: topicEtcd, Labels: []string{"server_id", "alarm_type"},
		Help: "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm",
		each: func(s *sample, put func(v float64, labels ...string)) {
			for _, a := range s.member.Alarms {
				put(1, a.Member.String(), a.Type.String())
			}
		},
	},
	etcd(Counter, "etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", func(s *sample) float64 { return float64(s.server.Received) }),
	etcd(Counter, "etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", func(s *sample) float64 { return float64(s.server.Sent) }),
	etcdPeer("etcd_network_peer_sent_bytes_total", "The total number of bytes sent to peers.", "To", func(p *kv.PeerFigures) float64 { return float64(p.Sent) }),
	etcdPeer("etcd_network_peer_received_bytes_total", "The total number of bytes received from peers.", "From", func(p *kv.PeerFigures) float64 { return float64(p.Received) }),
	etcdPeer("etcd_network_peer_sent_failures_total", "The total number of send failures from peers.", "To", func(p *kv.PeerFigures) float64 { return float64(p.Dropped) }),
	{
		Name: "etcd_network_peer_round_trip_time_seconds", Help: "Round-Trip-Time histogram between peers", Kind: Histogram, Topic: topicEtcd, Labels: []string{"To"},
		spread: func(s *sample, put func(d *kv.Durations, labels ...string)) {
			for i := range s.member.Peers {
				put(&s.member.Peers[i].RoundTrips, s.member.Peers[i].Member.String())
			}
		},
	},
	etcdPair("etcd_network_active_peers", "The current number of active peer connections.", func(p *kv.PeerFigures) float64 { return oneIf(p.Connected) }),
	etcdPair("etcd_network_known_peers", "The current number of known peers.", func(*kv.PeerFigures) float64 { return 1 }),
	etcd(Gauge, "os_fd_used", "The number of used file descriptors.", func(*sample) float64 { used, _ := descriptors(); return used }),
	etcd(Gauge, "os_fd_limit", "The file descriptor limit.", func(*sample) float64 { _, limit := descriptors(); return limit }),
}, callFamilies...)

func etcd(kind Kind, name, help string, read func(s *sample) float64) Family {
	return Family{Name: name, Help: help, Kind: kind, Topic: topicEtcd, one: read}
}

// etcdInfo is 1 with a text as its label.
func etcdInfo(name, help, label string, read func(s *sample) string) Family {
	return Family{
		Name: name, Help: help, Kind: Gauge, Topic: topicEtcd, Labels: []string{label},
		each: func(s *sample, put func(v float64, labels ...string)) { put(1, read(s)) },
	}
}

func etcdTimes(name, help string, read func(s *sample) *kv.Durations) Family {
	return Family{Name: name, Help: help, Kind: Histogram, Topic: topicEtcd, spread: one(read)}
}

// etcdPeer has the other member's id as its label.
func etcdPeer(name, help, label string, read func(p *kv.PeerFigures) float64) Family {
	return Family{
		Name: name, Help: help, Kind: Counter, Topic: topicEtcd, Labels: []string{label},
		each: func(s *sample, put func(v float64, labels ...string)) {
			for i := range s.member.Peers {
				put(read(&s.member.Peers[i]), s.member.Peers[i].Member.String())
			}
		},
	}
}

// etcdPair has both members' ids.
func etcdPair(name, help string, read func(p *kv.PeerFigures) float64) Family {
	return Family{
		Name: name, Help: help, Kind: Gauge, Topic: topicEtcd, Labels: []string{"Local", "Remote"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			for i := range s.member.Peers {
				put(read(&s.member.Peers[i]), s.status.Member.String(), s.member.Peers[i].Member.String())
			}
		},
	}
}

// calls adds up the calls of operations.
func calls(ops ...observe.Op) func(s *sample) float64 {
	return func(s *sample) (n float64) {
		for _, op := range ops {
			for r := range s.events.ops[op].results {
				n += float64(s.events.ops[op].results[r].Load())
			}
		}
		return n
	}
}
