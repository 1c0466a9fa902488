// Package machine is Concord's replicated state machine: keys by revision,
// leases and TTLs in cluster time, remembered results, staged large values,
// members and settings.
//
// It is a function of the log. [Machine.Apply] takes committed entries in order
// and depends on the state and the entry alone: no clock, random number, map
// order, local setting, I/O or goroutine, so that members that applied the same
// entries hold the same logical state, which [Machine.Hash] proves. What is
// local is invisible in results: how far physical compaction has come, when
// snapshots are taken.
//
// One goroutine applies; any goroutine reads, through a [View].
//
// Source: Schneider, "Implementing Fault-Tolerant Services Using the State
// Machine Approach", ACM Computing Surveys 22(4), 1990.
package machine
