// Package clientv3 uses etcd's Go client, and the packages that come with it,
// as programs do, against Concord and against etcd.
package clientv3
