// Package kvtest holds every [kv.Store] to one behaviour.
//
// [Run] is the suite: small named cases for everything that package kv
// promises, and a seeded random comparison with [Model], a naive store that is
// meant to be obviously right. The embedded member and the network client both
// pass it; a store of your own can be held to it too. Histories recorded from
// concurrent clients are checked by package lincheck.
package kvtest
