// Package migrate moves data between etcd and Concord, in both directions, and
// compares what came out on the other side.
package migrate
