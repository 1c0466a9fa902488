// Package compat holds the programs that show what of etcd works with Concord:
// differential asks both the same and compares, etcdctl and clientv3 run etcd's
// own clients. It is a module of its own, so that users of Concord never
// download etcd. The targets compat-* of the Makefile run it, and
// docs/COMPATIBILITY.md has the results.
package compat
