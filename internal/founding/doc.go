// Package founding makes one cluster, once, out of processes that were started
// with empty data directories: of those of a list a majority, or without a list
// as many as are expected, whoever they are.
//
// # The protocol
//
// Every process has a random id, made once and kept, and a durable [Record]:
// it is Free, it has Promised itself to another's proposal, it has Proposed one,
// or the cluster is Founded. All that is ever sent is a process's [Status]: its
// record and its settings, as a question and as the answer to one. A process
// counts on those that have answered it lately: with them it can talk both ways.
//
//   - A Free process that counts on enough Free others, and knows no lower id
//     that could do so too, makes a proposal: a cluster id and everybody's id,
//     name and addresses. Having it on disk it is Proposed, and says so.
//   - A Free process that hears of a proposal with itself in it promises itself
//     to it. Having that on disk it is Promised, and says so.
//   - A proposer that has heard from all that they promised is Founded: that
//     record on disk is the one decision. It says so, and whoever has promised
//     and hears it, from anyone, is Founded too. Only then is anything started.
//   - A proposer that finds a member of its proposal replaced, lost, or promised
//     to a proposer with a lower id, gives its proposal up. A promise ends only
//     when its own proposer is heard to have given it up (by a later record of
//     the proposer, which are numbered, without the proposal; or because it
//     belongs to another cluster), or can be seen never to be founded.
//   - A process that hears that another is Founded, in what it has not promised,
//     is told so and can only join. That goes before everything else.
//
// This is two-phase commit (Gray, "Notes on Data Base Operating Systems", 1978),
// so a proposal that was founded holds the promise of each of its members for
// good and excludes any other that shares a member. Everything may be lost,
// delayed, repeated and asked again, and any process may crash between any two
// steps.
//
// # Without a list
//
// A proposal has exactly [Settings].Expect members: the lowest ids, and the
// proposer's. When that is more than half of all that are ever started without
// data (a disk that was lost counts again), any two proposals share a member,
// and there is one cluster. Of more, two islands may found one each while they
// cannot hear of each other; when they meet, both say so ([RivalError]), and
// nothing is merged. So that whoever comes later does not found a second one, a
// process asks around for a while before it proposes ([Patience]); one that
// expects only itself has nothing else to go by.
//
// # With a list
//
// A majority of the list is enough, after it has waited a little for the rest. A
// proposal has everybody of the list; where nobody answers there is a
// placeholder, with an id that the proposer makes up. Any two majorities of
// equal lists share a process, which promises once, so there is one cluster, and
// a process that was not there can have founded no other: whatever it has
// promised can never be founded, and ends when it hears of the cluster. It is
// told of its place then ([PlaceError]). Who takes a place, and that nobody takes
// it twice, is decided by the cluster, in its log. Where disks are lost meanwhile
// there may be a second cluster of the list, but never two that have a majority
// at one time, because each name stands in one of them.
//
// # Its price
//
// Two-phase commit waits for a proposer that does not answer. Where its disk was
// lost before its decision was heard, and another process answers in its place,
// the other members end the proposal in two steps (machine_renounce.go). While
// it is only silent, or one of them has lost its disk too, who promised stays
// bound until the proposer is started again, or its own, still empty, directory
// is replaced; [Founder.Run] says so by name.
//
// The rules are those of [Machine], which does nothing by itself; internal/sim
// runs it in simulated time with all that can go wrong (make formation).
package founding
