package telemetry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// panel is a picture of the dashboard: one or more lines.
type panel struct {
	title, what, unit string
	lines             []line
}

// line is a query, in which $S stands for the choice of members, and what its
// results are called.
type line struct{ expr, legend string }

// row is a question of an operator's, and the panels that answer it.
type row struct {
	question string
	panels   []panel
}

// p99 and p50 are quantiles of a histogram, by labels.
func p99(name, by string) string { return quantileOf(0.99, name, by) }

func quantileOf(q float64, name, by string) string {
	return fmt.Sprintf(`histogram_quantile(%v, sum by (le, %s) (rate(%s_bucket$S[$__rate_interval])))`, q, by, name)
}

// rate is a rate of a counter, summed by labels.
func rate(name, by string) string {
	return fmt.Sprintf(`sum by (%s) (rate(%s$S[$__rate_interval]))`, by, name)
}

const perInstance, perPeer = "{{instance}}", "{{instance}} to {{peer}}"

// board is the dashboard.
var board = []row{
	{"Is it well?", []panel{
		{"Leader", "Who leads, and which members know a leader. No line at 1 means that nobody leads.", "none", []line{
			{`concord_role{role="leader",$L}`, perInstance + " leads"}, {`concord_leader_known$S`, perInstance + " knows one"},
		}},
		{"Voters connected", "As each member sees it. Below the majority there is no leader; at the majority one more failure stops writes.", "none", []line{
			{`concord_voters_connected$S`, perInstance}, {`max(concord_voters$S)`, "voters"}, {`floor(max(concord_voters$S) / 2) + 1`, "majority"},
		}},
		{"Leader changes", "More than a few an hour: the disks or the network of the members are too slow for the election timeout.", "none", []line{
			{`increase(concord_leader_changes_total$S[1h])`, perInstance}, {`changes(concord_term$S[1h])`, perInstance + " terms"},
		}},
		{"Alarms", "Members that an alarm is raised for, and what discovery finds odd.", "none", []line{
			{`max by (alarm) (concord_alarm$S)`, "{{alarm}}"}, {`max by (kind) (concord_discovery_processes$S)`, "{{kind}} processes"},
		}},
		{"Running since", "", "s", []line{{`concord_up_seconds$S`, perInstance}, {`max(concord_learners$S)`, "learners"}, {`concord_info$S`, "{{name}} {{version}}"}}},
		{"Membership changes", "", "none", []line{{`sum by (change) (increase(concord_membership_changes_total$S[1h]))`, "{{change}}"}}},
		{"Clocks", "What each machine's clock is off by, as seen from Prometheus, and how fast cluster time runs: 1 while something is written.", "s", []line{
			{`concord_clock_seconds$S - timestamp(concord_clock_seconds$S)`, perInstance + " off by"}, {`deriv(concord_cluster_time_seconds$S[5m])`, perInstance + " cluster time"},
		}},
	}},
	{"What is asked of it, and is it fast?", []panel{
		{"Calls", "", "ops", []line{{rate("concord_api_calls_total", "operation"), "{{operation}}"}}},
		{"Calls that failed", "", "ops", []line{{`sum by (operation, result) (rate(concord_api_calls_total{result!="ok",$L}[$__rate_interval])) > 0`, "{{operation}}: {{result}}"}, {rate("concord_proposals_failed_total", "instance"), perInstance + " not proposed"}}},
		{"Slowest of 100 calls", "", "s", []line{{p99("concord_api_seconds", "operation"), "{{operation}}"}}},
		{"Half of the calls", "", "s", []line{{quantileOf(0.5, "concord_api_seconds", "operation"), "{{operation}}"}}},
		{"Writes that wait", "For a majority.", "none", []line{{`concord_proposals_waiting$S`, perInstance}}},
		{"Bytes of writes that wait", "", "bytes", []line{{`concord_proposals_waiting_bytes$S`, perInstance}}},
		{"Keys that reads find", "", "ops", []line{{rate("concord_read_keys_total", "instance"), perInstance}}},
	}},
	{"Where does a write spend its time?", []panel{
		{"Phases of the slowest of 100 writes", "queue: until it is in an entry; log: until that is durable here; replicate: until a majority has it; apply: until it is state; answer: until the caller has it.", "s", []line{{p99("concord_write_phase_seconds", "phase"), "{{phase}}"}}},
		{"Log writes, slowest of 100", "", "s", []line{{p99("concord_log_write_seconds", "instance"), perInstance}, {p99("concord_log_sync_seconds", "instance"), perInstance + " fdatasync"}}},
		{"Apply, slowest of 100 batches", "", "s", []line{{p99("concord_apply_seconds", "instance"), perInstance}}},
		{"Entries a write of the log", "Many entries share a write under load.", "none", []line{{`rate(concord_log_entries_total$S[$__rate_interval]) / rate(concord_log_write_seconds_count$S[$__rate_interval])`, perInstance}, {rate("concord_applied_entries_total", "instance"), perInstance + " applied a second"}}},
	}},
	{"Do the disks keep up?", []panel{
		{"Written to the log", "", "Bps", []line{{rate("concord_log_written_bytes_total", "instance"), perInstance}}},
		{"Trouble", "1 is a disk that is full, or does not finish a write.", "none", []line{{`concord_disk_full$S`, perInstance + " full"}, {`concord_disk_stalled$S`, perInstance + " stalled"}, {`increase(concord_disk_stalls_total$S[1h])`, perInstance + " stalls an hour"}}},
		{"Space", "", "bytes", []line{{`concord_disk_free_bytes$S`, perInstance + " free"}, {`concord_log_bytes$S`, perInstance + " log"}}},
		{"Entries kept in the log", "", "none", []line{{`concord_log_kept_entries$S`, perInstance}}},
		{"Snapshots, slowest of 100", "", "s", []line{{p99("concord_snapshot_seconds", "instance"), perInstance}, {p99("concord_snapshot_send_seconds", "instance"), perInstance + " sent"}}},
		{"Snapshots", "", "none", []line{{`increase(concord_snapshot_errors_total$S[1h])`, perInstance + " failed"}, {`increase(concord_snapshot_installed_total$S[1h])`, perInstance + " installed"}}},
		{"Size of the last snapshot", "", "bytes", []line{{`concord_snapshot_bytes$S`, perInstance}}},
	}},
	{"Do the members keep up with each other?", []panel{
		{"Behind the leader", "Entries that a member has not acknowledged, as its leader sees it.", "none", []line{{`concord_peer_lag_entries$S`, "{{peer}}"}, {`max(concord_committed_index$S) - concord_applied_index$S`, perInstance + " to apply"}}},
		{"Connected", "", "none", []line{{`concord_peer_connected$S`, perPeer}, {`increase(concord_peer_disconnects_total$S[1h])`, perInstance + " lost an hour"}}},
		{"Silent", "", "s", []line{{`concord_peer_silent_seconds$S`, perPeer}}},
		{"Round trip, slowest of 100", "", "s", []line{{p99("concord_peer_round_trip_seconds", "instance, peer"), perPeer}}},
		{"Sent", "", "Bps", []line{{rate("concord_peer_sent_bytes_total", "instance, peer"), perPeer}}},
		{"Received", "", "Bps", []line{{rate("concord_peer_received_bytes_total", "instance, peer"), perInstance + " from {{peer}}"}}},
		{"Waits to be sent", "", "bytes", []line{{`concord_peer_queue_bytes$S`, perPeer}}},
		{"Not sent", "", "ops", []line{{rate("concord_peer_dropped_messages_total", "instance, peer"), perPeer}, {rate("concord_peer_bad_messages_total", "instance"), perInstance + " got nonsense"}}},
	}},
	{"Where does the memory go?", []panel{
		{"Process", "", "bytes", []line{{`process_resident_memory_bytes$S`, perInstance}, {`concord_memory_limit_bytes$S > 0`, perInstance + " limit"}, {`concord_memory_used_bytes$S > 0`, perInstance + " counts"}}},
		{"State", "", "bytes", []line{{`sum by (kind) (concord_state_memory_bytes$S)`, "{{kind}}"}, {`sum(concord_state_pinned_bytes$S)`, "kept for readers"}}},
		{"Data", "", "bytes", []line{{`max by (kind) (concord_data_bytes$S)`, "{{kind}}"}}},
		{"Keys and versions", "", "none", []line{{`concord_keys$S`, perInstance + " keys"}, {`concord_versions$S`, perInstance + " versions"}}},
		{"Limit reached", "", "none", []line{{`concord_memory_full$S`, perInstance}}},
		{"Revisions", "", "ops", []line{{`deriv(concord_revision$S[5m])`, perInstance + " made a second"}, {rate("concord_compacted_revisions_total", "instance"), perInstance + " compacted a second"}, {`increase(concord_compactions_total$S[1h])`, perInstance + " compactions an hour"}, {`max(concord_revision$S) - max(concord_compact_revision$S)`, "kept"}}},
		{"Go", "", "none", []line{{`go_goroutines$S`, perInstance + " goroutines"}, {`rate(go_gc_duration_seconds_count$S[$__rate_interval])`, perInstance + " collections a second"}}},
	}},
	{"Who watches, and what ends by time?", []panel{
		{"Watches", "", "none", []line{{`concord_watches$S`, perInstance}, {`concord_watches_behind$S`, perInstance + " behind"}}},
		{"Revisions behind", "Of the last watch.", "none", []line{{`concord_watch_lag_revisions$S`, perInstance}, {rate("concord_watch_lagging_total", "instance"), perInstance + " lagged a second"}}},
		{"Events", "", "ops", []line{{rate("concord_watch_events_total", "instance"), perInstance}, {rate("concord_watch_created_total", "instance"), perInstance + " began"}, {rate("concord_watch_cancelled_total", "instance"), perInstance + " ended"}}},
		{"Leases", "", "none", []line{{`max(concord_leases$S)`, "leases"}, {`max(concord_lease_keys$S)`, "keys on leases"}, {`max(concord_ttl_keys$S)`, "keys with a TTL"}}},
		{"What happens to leases", "", "ops", []line{{`max by (event) (rate(concord_lease_events_total$S[$__rate_interval]))`, "{{event}}"}, {`max(rate(concord_ttl_expired_keys_total$S[$__rate_interval]))`, "keys expired"}}},
	}},
	{"Who is let in, and who is refused?", []panel{
		{"Connections", "", "none", []line{{`concord_connections$S`, perInstance}}},
		{"Decisions", "", "ops", []line{{rate("concord_auth_decisions_total", "decision"), "{{decision}}"}}},
		{"Limits hit", "", "ops", []line{{rate("concord_limit_hits_total", "limit"), "{{limit}}"}}},
		{"Users and roles", "", "none", []line{{`max(concord_auth_users$S)`, "users"}, {`max(concord_auth_roles$S)`, "roles"}, {`max(concord_auth_enabled$S)`, "authentication is on"}, {`concord_auth_passwords_checking$S`, perInstance + " passwords to check"}}},
		{"Certificate ends in", "", "s", []line{{`concord_certificate_expiry_timestamp_seconds$S - time()`, perInstance}}},
		{"Since the last backup", "", "s", []line{{`time() - (max(concord_backup_last_timestamp_seconds$S) > 0)`, "backup"}}},
		{"Backups, slowest of 100", "", "s", []line{{p99("concord_backup_seconds", "instance"), perInstance}, {`increase(concord_backup_errors_total$S[1d])`, perInstance + " failed"}}},
	}},
}

// grafana is the dashboard as Grafana takes it, of schema 39 (Grafana 11).
func grafana() []byte {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	id, y := 0, 0
	for _, r := range board {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.question, "collapsed": false, "panels": []any{}, "gridPos": object{"h": 1, "w": 24, "x": 0, "y": y}})
		y++
		const height, width = 8, 8
		for i, p := range r.panels {
			id++
			var targets []object
			for k, l := range p.lines {
				targets = append(targets, object{"refId": string(rune('A' + k)), "datasource": source, "expr": l.query(), "legendFormat": l.legend})
			}
			panels = append(panels, object{
				"id": id, "type": "timeseries", "title": p.title, "description": p.what, "datasource": source, "targets": targets,
				"gridPos":     object{"h": height, "w": width, "x": i % 3 * width, "y": y + i/3*height},
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0, "custom": object{"fillOpacity": 8, "showPoints": "never"}}, "overrides": []any{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}},
			})
		}
		y += (len(r.panels) + 2) / 3 * height
	}
	choice := func(name, label string) object {
		return object{
			"name": name, "type": "query", "datasource": source, "query": label, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".+",
			"current": object{"text": "All", "value": "$__all"}, "sort": 1,
		}
	}
	out, err := json.MarshalIndent(object{
		"title": "Concord", "uid": "concord", "tags": []string{"concord"}, "schemaVersion": 39, "version": 1, "editable": true, "refresh": "10s",
		"time": object{"from": "now-1h", "to": "now"}, "timezone": "browser", "panels": panels, "annotations": object{"list": []any{}},
		"templating": object{"list": []object{
			{"name": "datasource", "type": "datasource", "query": "prometheus", "current": object{}},
			choice("job", "label_values(concord_info, job)"), choice("instance", `label_values(concord_info{job=~"$job"}, instance)`),
		}},
	}, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(out, '\n')
}

// query fills the choice of members in.
func (l line) query() string {
	const chosen = `job=~"$job",instance=~"$instance"`
	return strings.NewReplacer("$S", "{"+chosen+"}", "$L", chosen).Replace(l.expr)
}

// TestBoard: what lies in deploy is what is written here.
func TestBoard(t *testing.T) { compare(t, "deploy/grafana/concord.json", grafana()) }
