// Package shim runs the program under the name etcd, as scripts, units and test
// programs of etcd do: by etcd's flags, environment and settings file, with and
// without TLS, and asks it with etcd's own etcdctl.
package shim
