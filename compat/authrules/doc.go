// Package authrules holds the rules of Concord's users, roles and permissions
// to those of etcd: the same random changes are made to both, in one process
// and without a server, and both are asked the same.
package authrules
