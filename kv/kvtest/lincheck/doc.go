// Package lincheck decides whether what concurrent clients of a store saw is
// linearizable: whether one order of all operations explains every answer and
// agrees with real time.
//
// A [History] is filled by a [Recorder] around a store, or by hand where time is
// virtual. Keys are checked one by one as registers that know their revisions
// (by porcupine: Herlihy and Wing, "Linearizability", TOPLAS 12(3), 1990;
// Lowe, "Testing for linearizability", CCPE 29(4), 2017), and across all keys
// the revisions are held against real time.
package lincheck
