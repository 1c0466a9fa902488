// Package foreign runs programs and clients that are not ours, and mostly not
// Go's, against etcd and against Concord under etcd's command line: each check
// is first made with etcd itself, so that it is known to hold there, then with
// one member of Concord and with three.
//
// A check is a command. It finds the servers' addresses, as URLs with commas
// between them, in ENDPOINTS, which of the two they are in SERVER, and in
// CONTROL the address of pages: POST CONTROL/restart?member=N kills that member
// as kill -9 does, starts it again and answers when it serves; /kill, /launch and
// /ready are its three parts.
package foreign
