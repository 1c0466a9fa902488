package snap

import (
	"errors"
	"fmt"
)

// Meta says what a snapshot is of.
type Meta struct {
	// Index and Term are the last entry whose effects the state has.
	Index, Term uint64
	// ConfState is the Raft configuration at Index, in the caller's encoding;
	// at most 1 MiB.
	ConfState []byte
	Cluster   uint64
	// Time is cluster time at Index, in milliseconds.
	Time int64
	// Hash is the running state hash at Index.
	Hash uint64
	// Size is the length of the state in bytes. It is set by what writes.
	Size int64
}

// Options choose how a store uses its disk. The zero value is right for a
// server.
type Options struct {
	// ChunkSize is how many bytes of state have one checksum; 0 means 256 KiB,
	// the most is 16 MiB.
	ChunkSize int
}

// Errors, compared with errors.Is.
var (
	// ErrNotFound: there is no such snapshot.
	ErrNotFound = errors.New("snap: no such snapshot")
	// ErrFormat: the file has a format that this program does not know.
	ErrFormat = errors.New("snap: unknown format")
)

// CorruptError says where a snapshot is damaged.
type CorruptError struct {
	// File is the path, empty for a stream; Offset is the byte in it.
	File   string
	Offset int64
	Reason string
}

// Error names file, offset and reason.
func (e *CorruptError) Error() string {
	name := e.File
	if name == "" {
		name = "the snapshot stream"
	}
	return fmt.Sprintf("snap: %s is damaged at byte %d: %s", name, e.Offset, e.Reason)
}
