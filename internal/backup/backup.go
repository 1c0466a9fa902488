// Package backup makes backups of a running member, verifies them, builds a new
// cluster's data directory from one, and checks a data directory offline.
//
// A backup is a snapshot file as a member keeps it: every bit of it is under a
// checksum, its length and its end included.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
)

// Source is a running member.
type Source interface {
	// Snapshot returns a snapshot of at least what was applied when it was
	// called.
	Snapshot(ctx context.Context) (snap.Meta, error)
	// SendTo writes the file of the snapshot at index, verifying it. It
	// returns snap.ErrNotFound when a newer one has taken its place.
	SendTo(index uint64, w io.Writer) error
}

// attempts is how often a snapshot may be replaced before it could be opened.
const attempts = 5

// Create writes a backup of s to w while s goes on. It takes no more memory
// than a chunk. After an error what w got is no backup, and Verify says so.
func Create(ctx context.Context, w io.Writer, s Source) (snap.Meta, error) {
	out := &watched{ctx: ctx, w: w}
	for try := 1; ; try++ {
		m, err := s.Snapshot(ctx)
		if err == nil {
			err = s.SendTo(m.Index, out)
		}
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, snap.ErrNotFound) && !out.begun && try < attempts:
			continue
		}
		return snap.Meta{}, fmt.Errorf("create backup: %w", err)
	}
}

// watched stops writing when its context ends.
type watched struct {
	ctx   context.Context
	w     io.Writer
	begun bool
}

// Write implements io.Writer.
func (w *watched) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, context.Cause(w.ctx)
	}
	w.begun = true
	return w.w.Write(b)
}

// Verify reads a backup to its end and finds any bit that is not as it was
// written, and any byte that is missing or too many: a *snap.CorruptError.
func Verify(r io.Reader) (snap.Meta, error) {
	m, err := snap.Verify(r)
	if err != nil {
		return snap.Meta{}, fmt.Errorf("verify backup: %w", err)
	}
	return m, nil
}

// VerifyFile verifies the backup at path.
func VerifyFile(path string) (snap.Meta, error) {
	f, err := vfs.OS().OpenFile(path, os.O_RDONLY)
	if err != nil {
		return snap.Meta{}, fmt.Errorf("open backup: %w", err)
	}
	r, err := reading(f)
	var m snap.Meta
	if err == nil {
		m, err = Verify(r)
	}
	return m, errors.Join(name(err, path), f.Close())
}

// Damage returns what is wrong with the content of the backup file, by file and
// byte, or nil when err is about something else.
func Damage(err error, file string) error {
	var c *snap.CorruptError
	if !errors.As(err, &c) {
		return nil
	}
	d := *c
	if d.File == "" {
		d.File = file
	}
	return &d
}

// name puts the path into an error about a stream.
func name(err error, path string) error {
	var c *snap.CorruptError
	if errors.As(err, &c) && c.File == "" {
		c.File = path
	}
	return err
}

func reading(f vfs.File) (io.Reader, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, size), nil
}

// Save keeps the backup that write writes as the file path, which must not
// exist. The file gets its name only when it is complete, verified and durable;
// its mode is 0600.
func Save(path string, write func(io.Writer) error) (m snap.Meta, err error) {
	fsys := vfs.OS()
	if f, err := fsys.OpenFile(path, os.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.Join(fmt.Errorf("%s: %w; choose another name", path, fs.ErrExist), f.Close())
		}
		return m, fmt.Errorf("save backup: %w", err)
	}
	temp := path + ".tmp"
	// What an earlier try has left goes, and a link that others have put there: a
	// new file is made, or none.
	_ = fsys.Remove(temp)
	f, err := fsys.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return m, fmt.Errorf("save backup: %w", err)
	}
	err = write(&appender{file: f})
	if err == nil {
		err = f.Sync()
	}
	var r io.Reader
	if err == nil {
		r, err = reading(f)
	}
	if err == nil {
		m, err = snap.Verify(r)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(temp, path)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = fsys.Remove(temp) // it is an error already
		return snap.Meta{}, fmt.Errorf("save backup: %w", err)
	}
	return m, nil
}

// appender writes at the end of a file.
type appender struct {
	file vfs.File
	off  int64
}

// Write implements io.Writer.
func (a *appender) Write(b []byte) (int, error) {
	n, err := a.file.WriteAt(b, a.off)
	a.off += int64(n)
	return n, err
}
