package backup

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSaveThroughLinks: whoever may make files in the directory of a backup
// cannot have another file written, nor read the backup.
func TestSaveThroughLinks(t *testing.T) {
	good := first(t)
	for name, c := range map[string]struct {
		link, to string // in the directory of the backup
		want     error
	}{
		"to a file, for the work":  {link: "b.tmp", to: "../victim"},
		"to nothing, for the work": {link: "b.tmp", to: "../nothing"},
		"to a directory":           {link: "b.tmp", to: ".."},
		"to a file":                {link: "b", to: "../victim", want: fs.ErrExist},
		"to nothing":               {link: "b", to: "../nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "shared", "b")
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(victim, []byte("mine"), 0o644), os.Symlink(c.to, filepath.Join(dir, "shared", c.link))); err != nil {
				t.Fatal(err)
			}
			_, err := Save(path, func(w io.Writer) error { _, err := w.Write(good); return err })
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			info, statErr := os.Stat(victim)
			if data, err := os.ReadFile(victim); err != nil || statErr != nil || string(data) != "mine" || info.Mode().Perm() != 0o644 {
				t.Errorf("the other file became %.20q, %v, %v", data, info, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a file was made where the link leads")
			}
			if c.want != nil {
				return
			}
			info, err = os.Lstat(path)
			if data, _ := os.ReadFile(path); err != nil || info.Mode() != 0o600 || !bytes.Equal(data, good) {
				t.Errorf("the backup is %v, %v", info, err)
			}
		})
	}
}

// TestModesWhateverTheUmask: a backup, and what it is restored to, are their
// owner's alone.
func TestModesWhateverTheUmask(t *testing.T) {
	good := first(t)
	for _, mask := range []int{0, 0o022, 0o077} {
		dir := t.TempDir()
		before := unix.Umask(mask)
		path := filepath.Join(dir, "b")
		_, err := Save(path, func(w io.Writer) error { _, err := w.Write(good); return err })
		restoredAt, _ := restored(t, good)
		unix.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		for _, root := range []string{path, restoredAt} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				want := fs.FileMode(0o600)
				if d.IsDir() {
					want = 0o700
				}
				if info, err := d.Info(); err != nil || info.Mode().Perm() != want {
					t.Errorf("umask %o: %s has %v, %v", mask, path, info.Mode(), err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
}
