// Package founding makes one cluster, once, out of processes that were started
// with the same list of members and with empty data directories.
//
// # The protocol
//
// Every process has a random id, made once and kept, and a durable [Record]:
// it is Free, it has Promised itself to another's proposal, it has Proposed one,
// or the cluster is Founded. All that is ever sent is a process's [Status]: its
// record and its settings, as a question and as the answer to one.
//
//   - A Free process that knows every listed process to be Free too, and has the
//     lowest id, makes a proposal: a cluster id and everybody's id, name and
//     addresses. Having it on disk it is Proposed, and says so.
//   - A Free process that hears of a proposal with itself in it promises itself
//     to it. Having that on disk it is Promised, and says so.
//   - A proposer that has heard from all that they promised is Founded: that
//     record on disk is the one decision. It says so, and whoever has promised
//     and hears it, from anyone, is Founded too. Only then is anything started.
//   - A proposer that finds a member of its proposal replaced, or promised to a
//     proposer with a lower id, gives its proposal up. A promise ends only when
//     its own proposer is heard to have given it up: a later record of the
//     proposer (records are numbered) without the proposal.
//   - A process that hears that another of the list is Founded, in what it has
//     not promised, is told so and can only join.
//
// This is two-phase commit (Gray, "Notes on Data Base Operating Systems", 1978)
// with unanimous consent, so a proposal that was founded holds every member's
// promise for good and excludes any other that shares a member. Everything may
// be lost, delayed, repeated and asked again, and any process may crash between
// any two steps. The price is two-phase commit's: if a proposer's disk is lost
// before its decision was heard, who promised stays bound until its own, still
// empty, directory is replaced; [Founder.Run] says so by name.
package founding
