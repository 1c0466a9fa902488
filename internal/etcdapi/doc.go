// Package etcdapi serves a [kv.Store] and a [kv.Cluster] as the etcd v3 gRPC
// API: the services KV, Watch, Lease, Cluster, Maintenance and Auth of etcd 3.7,
// Lock and Election, with etcd's status codes and messages.
//
// Where the store is a [kv.Authority] every call is made in the name of who
// calls: see the table of rights, and [API.Guard], which stands before every
// method.
//
// What Concord has and etcd has not travels in protobuf fields from 1000 up;
// api/extensions.md lists them. A server sends them only to clients that ask,
// so that others see exactly etcd's messages.
package etcdapi
