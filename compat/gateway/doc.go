// Package gateway sends the same requests to the HTTP side of etcd and of
// Concord, the JSON gateway and the pages beside it, and compares the answers:
// status, content type and body.
package gateway
