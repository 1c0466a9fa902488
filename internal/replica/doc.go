// Package replica drives go.etcd.io/raft/v3: it puts commands into a log that a
// majority of the members holds, and applies them, in one order everywhere.
//
// It has two parts. [Core] is sans-IO: a value that inputs are stepped into and
// outputs are taken from, with no goroutine, channel, clock, map order or
// random number in it but the election jitter that raft draws from
// crypto/rand.Reader. [Replica] is the shell around it: one goroutine that owns
// the core, one that writes the log, one that applies. A simulator drives Core
// and [Applier] itself, with a disk, network and clock of its own.
//
// # How a command travels
//
// Commands that wait on one member are packed into a [Group]. The leader packs
// its own groups and those that followers forward into one log entry, stamps it
// with cluster time and proposes it. Every member decodes the entry when it
// applies it; the member where the calls came in finds its callers by (origin,
// incarnation, sequence) and answers them from its own apply, so no result
// crosses the network.
//
// A group is forwarded under the leader's term, on a numbered stream, and is
// appended at most once in that term and in no other. Terms in a log never
// fall, so a member that applies an entry of a later term knows that a group of
// an earlier one, which it has not met by then, is lost for ever: it hands it
// to the new leader. A fail-over therefore delays calls and does not fail them,
// and runs no command twice.
package replica
