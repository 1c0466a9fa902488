// Package etcdctl runs etcd's own etcdctl against etcd and against "concord dev"
// of three members, a process of its own, and compares what it prints.
package etcdctl
