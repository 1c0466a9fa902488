// Package servers starts clusters of etcd and of Concord in the process of a
// test, on loopback and free ports, with etcd's limits on requests. What is
// started ends with the test. Data is kept in memory where the system has a
// file system for that, because nothing here tests disks.
package servers
