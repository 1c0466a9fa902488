// Package kv is Concord's vocabulary: the store that every face of Concord
// offers, what may be asked of it, what it answers, and the errors it returns.
//
// The embedded member (package concord) and the network client (package client)
// both implement [Store]; the wire APIs are written against it. The package
// imports the standard library only.
package kv
