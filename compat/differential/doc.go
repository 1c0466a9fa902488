// Package differential asks etcd and Concord the same, over gRPC with the
// generated clients, and compares what they answer field by field.
//
// These fields may differ, and nothing else:
//
//   - cluster and member ids and Raft terms in headers (whether they are there
//     must agree), ids and names of members;
//   - lease ids that the server chose, and remaining TTLs by one second, since
//     the calls do not come at the same instant;
//   - the order of leases in a list, which etcd sorts by what remains of them;
//   - hash values, sizes, Raft indexes and versions;
//   - how events of several revisions are spread over responses while a watch
//     catches up, and the header revision of these responses, which are a matter
//     of time in etcd too: events are compared in order, and no revision may be
//     divided unless fragments were asked for;
//   - details of a status, which etcd does not use.
package differential
