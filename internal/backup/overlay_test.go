package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

// TestOverlay does the same things to a file system and to an overlay of its
// copy: they look the same, and the copy stays as it was.
func TestOverlay(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var real, base vfs.Mem
		original := map[string][]byte{}
		for _, m := range []*vfs.Mem{&real, &base} {
			if err := m.MkdirAll("/d"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			name := fmt.Sprint("/d/", i)
			b := make([]byte, rng.IntN(3*pageBytes))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			original[name] = b
			if err := errors.Join(real.WriteFile(name, b), base.WriteFile(name, b)); err != nil {
				t.Fatal(err)
			}
		}
		o := newOverlay(&base)
		for range 100 {
			script := rng.Uint64()
			a, b := act(&real, rand.New(rand.NewPCG(script, 0))), act(o, rand.New(rand.NewPCG(script, 0)))
			if a != b {
				t.Fatalf("seed %d: the real one gives %s, the overlay %s", seed, a, b)
			}
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		names, err := base.ReadDir("/d")
		if err != nil || !slices.Equal(names, []string{"0", "1", "2"}) {
			t.Fatalf("seed %d: base has %v, %v", seed, names, err)
		}
		for name, want := range original {
			if got, err := base.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: %s changed", seed, name)
			}
		}
	}
}

// act does something to a file system and says what came of it.
func act(fsys vfs.FS, rng *rand.Rand) string {
	name := fmt.Sprint("/d/", rng.IntN(5))
	switch rng.IntN(10) {
	case 0:
		return fmt.Sprint("remove ", is(fsys.Remove(name)))
	case 1:
		return fmt.Sprint("rename ", is(fsys.Rename(name, fmt.Sprint("/d/", rng.IntN(5)))))
	case 2:
		names, err := fsys.ReadDir("/d")
		return fmt.Sprint(names, is(err))
	}
	flags := []int{os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_EXCL, os.O_RDWR | os.O_CREATE | os.O_TRUNC}
	f, err := fsys.OpenFile(name, flags[rng.IntN(4)])
	if err != nil {
		return fmt.Sprint("open ", is(err))
	}
	said := ""
	for range 4 {
		off, n := rng.Int64N(3*pageBytes), 1+rng.IntN(2*pageBytes)
		switch rng.IntN(4) {
		case 0:
			b := bytes.Repeat([]byte{byte(rng.Uint32())}, n)
			k, err := f.WriteAt(b, off)
			said += fmt.Sprint("write ", k, is(err))
		case 1:
			said += fmt.Sprint("truncate ", is(f.Truncate(off)))
		case 2:
			said += fmt.Sprint("allocate ", is(f.Allocate(off, int64(n))))
		default:
			b := make([]byte, n)
			k, err := f.ReadAt(b, off)
			said += fmt.Sprintf("read %d %s %x", k, is(err), b[:k])
		}
	}
	size, err := f.Size()
	return said + fmt.Sprint("size ", size, is(err), is(f.Sync()), is(f.Close()))
}

// is names an error by its kind.
func is(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fs.ErrNotExist):
		return "none"
	case errors.Is(err, fs.ErrExist):
		return "exists"
	case errors.Is(err, io.EOF):
		return "end"
	}
	return "error"
}
