// Package memberfile keeps member.json: who the member is whose data directory
// it lies in. The file is JSON for people to read, on disk always one whole
// version of it, and checksummed, so that a flipped bit never gives a member
// another identity. It must not be edited.
package memberfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/concord-kv/concord/internal/vfs"
)

// Name is the file's name in a data directory.
const Name = "member.json"

// Format is the newest format that this program reads, and the one it writes.
const Format = 1

// maxBytes bounds what is read.
const maxBytes = 4 << 20

// File is what member.json says.
type File struct {
	// Format of the data directory as a whole; Save sets it.
	Format int `json:"format"`
	// ID is random, made once and never 0. Name is for people.
	ID   uint64 `json:"id,string"`
	Name string `json:"name"`
	// Cluster is 0 until the member belongs to one.
	Cluster uint64 `json:"cluster,string"`
	// Group is the name of the cluster that the member found by itself; empty
	// when it was told its peers.
	Group string `json:"group,omitempty"`
	// Left tells that the member is none any more: it left, or was removed.
	// Its directory is of use to people only.
	Left bool `json:"left,omitempty"`
	// Divergent tells that the member's state was found to differ from that of
	// a majority. Who joins again does not use the directory.
	Divergent bool `json:"divergent,omitempty"`
	// Incarnation counts the starts of the member. One that falls shows that
	// the directory is an older copy.
	Incarnation uint64 `json:"incarnation"`
	// ReadLease tells that the member may have promised, in its last life, not
	// to elect a leader for a while.
	ReadLease bool `json:"read_lease,omitempty"`
	// Founding is what the founding protocol must not forget, in its own
	// encoding; empty when it was never run.
	Founding json.RawMessage `json:"founding,omitempty"`
	// Checksum is the CRC-32C of the file with this field 0; Save sets it.
	Checksum uint32 `json:"checksum"`
}

// FormatError tells that a newer release wrote the directory.
type FormatError struct {
	File   string
	Format int
}

// Error names both formats and the next step.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s has data format %d, and this release knows formats up to %d; start the release that wrote it, or a newer one", e.File, e.Format, Format)
}

// CorruptError tells that the file is damaged.
type CorruptError struct{ File, Reason string }

// Error names the file and the next step.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; restore this member from a backup, or let it join its cluster again as a new member (--rejoin)", e.File, e.Reason)
}

// ClusterError tells that a directory belongs to another cluster.
type ClusterError struct {
	File, What string
	Has, Want  uint64
}

// Error names both clusters and the next step.
func (e *ClusterError) Error() string {
	return fmt.Sprintf("%s belongs to cluster %x, but %s to cluster %x; check the data directory, one of them was copied from elsewhere", e.File, e.Has, e.What, e.Want)
}

// Load reads the file in dir. There being none is fs.ErrNotExist; other errors
// are those of the file system, a [FormatError] or a [CorruptError].
func Load(fs vfs.FS, dir string) (File, error) {
	path := filepath.Join(dir, Name)
	b, err := read(fs, path)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, err)
	}
	return parse(path, b)
}

func read(fs vfs.FS, path string) (_ []byte, err error) {
	f, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, min(size, maxBytes+1)))
}

// parse accepts exactly what encode made.
func parse(path string, b []byte) (File, error) {
	var head struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return File{}, &CorruptError{File: path, Reason: err.Error()}
	}
	if head.Format == nil || *head.Format < 1 {
		return File{}, &CorruptError{File: path, Reason: "it has no format"}
	}
	if *head.Format > Format {
		return File{}, &FormatError{File: path, Format: *head.Format}
	}
	var f File
	if err := json.Unmarshal(b, &f); err != nil {
		return File{}, &CorruptError{File: path, Reason: err.Error()}
	}
	if want, err := f.encode(); err != nil || len(b) > maxBytes || f.ID == 0 || !bytes.Equal(b, want) {
		return File{}, &CorruptError{File: path, Reason: "it does not match its checksum; it was damaged or edited"}
	}
	return f, nil
}

// encode returns the file's bytes, with their checksum.
func (f File) encode() ([]byte, error) {
	f.Checksum = 0
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, err
	}
	f.Checksum = crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	if b, err = json.MarshalIndent(f, "", "  "); err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Save replaces the file in dir. When it returns nil the new one is durable;
// after an error, and after a crash before, it is the new one or the old one.
func Save(fs vfs.FS, dir string, f File) error {
	f.Format = Format
	path := filepath.Join(dir, Name)
	b, err := f.encode()
	if err == nil && (f.ID == 0 || len(b) > maxBytes) {
		err = fmt.Errorf("id %x, %d bytes", f.ID, len(b))
	}
	if err == nil {
		err = write(fs, path+".tmp", b)
	}
	if err == nil {
		err = fs.Rename(path+".tmp", path)
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

func write(fs vfs.FS, path string, b []byte) (err error) {
	f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// CheckCluster returns a [ClusterError] when the directory dir, whose file is f,
// does not belong to the cluster that what belongs to. A member that has no
// cluster yet may join any.
func (f File) CheckCluster(dir, what string, cluster uint64) error {
	if f.Cluster == 0 || f.Cluster == cluster {
		return nil
	}
	return &ClusterError{File: filepath.Join(dir, Name), What: what, Has: f.Cluster, Want: cluster}
}
