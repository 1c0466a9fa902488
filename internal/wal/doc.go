// Package wal keeps Raft's entries, hard state and snapshot mark on disk.
package wal
