// Package migrate copies keys and leases from an etcd, running or as a file, to
// a store.
//
// Source and target are gone through side by side in key order, and only what
// differs is written: so a copy that was interrupted, or is made again later,
// costs a reading and the changes. Keys keep value and lease; revisions, versions
// and history are the target's own.
package migrate
