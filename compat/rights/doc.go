// Package rights asks every method of every service, and every route of the JSON
// gateway, with every kind of credentials: of etcd, whose answers are the
// measure, and of each of three members of Concord, at once after authentication
// was switched on, after the leader has changed and after all members were
// started again; with simple tokens, JSON Web Tokens and certificates, plain and
// with TLS. A method or route that a server has and the table has not fails the
// test.
package rights
