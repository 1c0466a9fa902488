// Package snap keeps snapshots of the state on disk and moves them between
// members.
package snap

import (
	"errors"
	"fmt"
	"io"

	"github.com/concord-kv/concord/internal/vfs"
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
	// ChunkSize is how many bytes of state have one checksum; 0 means 256 KiB.
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

// Store holds the snapshots of one member. All methods may be called
// concurrently.
type Store struct{}

// Open lists the snapshots in dir, which it makes if needed, and removes
// leftovers of interrupted writes.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) { panic("being written") }

// List returns what there is, the newest first. Files whose head or end is
// damaged are not in it but in Damaged.
func (s *Store) List() []Meta { panic("being written") }

// Damaged returns the damage found so far.
func (s *Store) Damaged() []*CorruptError { panic("being written") }

// Create writes a snapshot of what write produces. When it returns nil, the
// file was synced, read back, verified and given its name durably. The result
// is m with its Size.
func (s *Store) Create(m Meta, write func(io.Writer) error) (Meta, error) { panic("being written") }

// Open opens the snapshot at index for reading.
func (s *Store) Open(index uint64) (*Reader, error) { panic("being written") }

// Receive stores what SendTo sent elsewhere, under the same promises as
// Create.
func (s *Store) Receive(r io.Reader) (Meta, error) { panic("being written") }

// SendTo writes the file's bytes to w, verifying them as it goes: a damaged
// file ends early with a *CorruptError.
func (s *Store) SendTo(index uint64, w io.Writer) error { panic("being written") }

// Retain removes all but the newest n good snapshots; n below 2 counts as 2.
// What it keeps was verified.
func (s *Store) Retain(n int) error { panic("being written") }

// Write encodes a snapshot to any writer, such as a backup's. It returns m with
// its Size.
func Write(w io.Writer, m Meta, write func(io.Writer) error) (Meta, error) { panic("being written") }

// Verify reads a whole snapshot file and tells whether each bit of it is as it
// was written.
func Verify(r io.Reader) (Meta, error) { panic("being written") }

// Reader reads one snapshot. Read is for one goroutine; ReadChunk may be
// called concurrently.
type Reader struct{}

// Meta says what the snapshot is of.
func (r *Reader) Meta() Meta { panic("being written") }

// Read reads the state. No byte is returned that was not verified; the last
// one is followed by io.EOF only if the whole file checks.
func (r *Reader) Read(p []byte) (int, error) { panic("being written") }

// Chunks is the number of chunks.
func (r *Reader) Chunks() int { panic("being written") }

// ReadChunk returns chunk i, verified, in buf when it is large enough.
func (r *Reader) ReadChunk(i int, buf []byte) ([]byte, error) { panic("being written") }

// Close closes the file.
func (r *Reader) Close() error { panic("being written") }
