// Package auth keeps users, roles, permissions and tokens, and says who may do
// what. Its rules are etcd's (server/auth/store.go and
// range_perm_cache.go of etcd 3.7), so that the same changes lead to the same
// answers.
//
// It is a part of the replicated state machine: what comes out depends on what
// went in alone. Passwords are hashed elsewhere.
package auth
