// Package commonapi holds etcd and Concord to what etcd's own tests of its API,
// in go.etcd.io/etcd/tests/v3/common, ask of both its server in a process and its
// program. Each behaviour is tried on etcd, which shows that it is etcd's, on one
// member of Concord and on three, plain, with client certificates and with
// certificates that the servers make. What is about users is tried with simple
// tokens and with JSON Web Tokens.
//
// docs/ETCD-TESTS.md says which behaviour stands for which of etcd's tests; a
// test holds it to the tests that etcd has.
package commonapi
