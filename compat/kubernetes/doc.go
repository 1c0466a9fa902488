// Package kubernetes runs the storage tests of k8s.io/apiserver: the functions
// of its package storage/testing on the store that kube-apiserver has, first
// with etcd's embed server, so that it is known that they are run rightly, then
// with Concord under etcd's command line, one member and three.
//
// It is a module of its own, because what Kubernetes requires would decide the
// versions that the other programs of compat are built with.
package kubernetes
