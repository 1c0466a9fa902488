// Package etcdapi serves a [kv.Store] and a [kv.Cluster] as the etcd v3 gRPC
// API: the services KV, Watch, Lease, Cluster, Maintenance and (as far as it
// goes without users) Auth of etcd 3.7, with etcd's status codes and messages.
//
// What Concord has and etcd has not travels in protobuf fields from 1000 up;
// api/extensions.md lists them. A server sends them only to clients that ask,
// so that others see exactly etcd's messages.
package etcdapi
