// Package coredns runs CoreDNS with its etcd plugin, in the process of a test,
// on the servers of ENDPOINTS; see compat/foreign, which starts them. It is a
// module of its own because CoreDNS brings its own etcd client.
package coredns
