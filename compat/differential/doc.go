// Package differential asks etcd and Concord the same, over gRPC with the
// generated clients, and compares what they answer field by field.
//
// These fields may differ, and nothing else:
//
//   - cluster and member ids and Raft terms in headers (whether they are there
//     must agree), ids and names of members;
//   - lease ids that the server chose, and remaining TTLs by some seconds, since
//     the calls do not come at the same instant;
//   - the order of leases in a list, which etcd sorts by what remains of them,
//     and of the keys of a lease, which is a matter of chance in etcd;
//   - hash values, sizes, the quota, Raft indexes and versions;
//   - how events of several revisions are spread over responses while a watch
//     catches up, and the header revision of these responses, which are a matter
//     of time in etcd too: events are compared in order, and no revision may be
//     divided unless fragments were asked for;
//   - details of a status, which etcd does not use.
//
// Some requests are not made, because etcd's answer to them is a fault of its
// own: transactions that change a key twice in a way that etcd does not see (a
// delete of all keys from one on; a nested transaction that deletes what an
// earlier one put), which Concord refuses; range streams with a sort target and
// no order, where etcd loses keys; negative revisions in a transaction, which
// are compacted ones for etcd and the latest elsewhere and for Concord; sorts of
// more than twelve keys with equal sort values, which etcd leaves in any order; anything
// the first compaction of revision 0, which etcd takes and then refuses; anything
// on a stream on which a watch was cancelled because of a compaction, since etcd
// keeps that watch's id and reports no progress there any more.
package differential
