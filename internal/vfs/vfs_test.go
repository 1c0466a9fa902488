package vfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// lockEnv tells the test binary to take a lock and hold it: see TestLock.
const lockEnv = "VFS_TEST_LOCK"

func TestMain(m *testing.M) {
	if name := os.Getenv(lockEnv); name != "" {
		if _, err := OS().Lock(name); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, f File, s string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(s), off)
	if err != nil || n != len(s) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(s), err)
	}
}

func content(t testing.TB, f File) string {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b)
}

// TestBoth holds the file systems to one contract.
func TestBoth(t *testing.T) {
	for name, f := range map[string]FS{"os": OS(), "mem": &Mem{}} {
		t.Run(name, func(t *testing.T) {
			root := "root"
			if name == "os" {
				root = t.TempDir()
			}
			contract(t, f, filepath.Join(root, "a", "b"))
		})
	}
}

func contract(t *testing.T, fsys FS, dir string) {
	must(t, fsys.MkdirAll(dir))
	must(t, fsys.MkdirAll(dir))
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	if _, err := fsys.OpenFile(x, os.O_RDWR); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := fsys.ReadDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile(x, os.O_RDWR|os.O_CREATE)
	must(t, err)
	if _, err := fsys.OpenFile(x, os.O_RDWR|os.O_CREATE|os.O_EXCL); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := fsys.MkdirAll(x); !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	must(t, f.Allocate(0, 10))
	write(t, f, "abc", 8)
	must(t, f.Sync())
	if got := content(t, f); got != "\x00\x00\x00\x00\x00\x00\x00\x00abc" {
		t.Fatalf("%q", got)
	}
	must(t, f.Truncate(9))
	must(t, f.Truncate(12))
	if got := content(t, f); got != "\x00\x00\x00\x00\x00\x00\x00\x00a\x00\x00\x00" {
		t.Fatalf("%q", got)
	}
	if n, err := f.ReadAt(make([]byte, 4), 10); n != 2 || err != io.EOF {
		t.Fatal(n, err)
	}
	must(t, fsys.Rename(x, y))
	must(t, fsys.SyncDir(dir))
	names, err := fsys.ReadDir(dir)
	must(t, err)
	if !slices.Equal(names, []string{"y"}) {
		t.Fatal(names)
	}
	must(t, fsys.Remove(y))
	if got := content(t, f); len(got) != 12 {
		t.Fatalf("a removed file that is open has %d bytes", len(got))
	}
	must(t, f.Close())
	if err := fsys.Remove(y); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l, err := fsys.Lock(x)
	must(t, err)
	if _, err := fsys.Lock(x); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	must(t, l.Close())
	l, err = fsys.Lock(x)
	must(t, err)
	must(t, l.Close())
}

// TestExchange swaps directories, where that can be done.
func TestExchange(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, dir := range []string{a, b} {
		must(t, OS().MkdirAll(filepath.Join(dir, "was "+filepath.Base(dir))))
	}
	want := []string{"was b"}
	if err := Exchange(OS(), a, b); errors.Is(err, errors.ErrUnsupported) {
		want = []string{"was a"}
	} else {
		must(t, err)
	}
	names, err := OS().ReadDir(a)
	must(t, err)
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if err := Exchange(OS(), a, b+"x"); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := Exchange(&Mem{}, a, b); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// TestModes makes files and directories under a umask that would open and one
// that would close them.
func TestModes(t *testing.T) {
	for _, mask := range []int{0, 0o777} {
		old := syscall.Umask(mask)
		root := filepath.Join(t.TempDir(), fmt.Sprint(mask))
		dir := filepath.Join(root, "a", "b")
		err := OS().MkdirAll(dir)
		var f File
		if err == nil {
			f, err = OS().OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
		}
		syscall.Umask(old)
		must(t, err)
		must(t, f.Close())
		for name, want := range map[string]fs.FileMode{root: 0o700, dir: 0o700, filepath.Join(dir, "f"): 0o600} {
			info, err := os.Stat(name)
			must(t, err)
			if info.Mode().Perm() != want {
				t.Errorf("umask %o: %s has mode %v", mask, name, info.Mode())
			}
		}
	}
}

// TestLock: another process holds the lock; it is named, and its end frees it.
func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockEnv+"="+name)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = OS().Lock(name)
	var le *LockedError
	if !errors.As(err, &le) || le.PID != cmd.Process.Pid || !strings.Contains(err.Error(), fmt.Sprint(le.PID)) {
		t.Errorf("error is %v, the holder is %d", err, cmd.Process.Pid)
	}
	must(t, cmd.Process.Kill())
	_ = in.Close()
	_ = cmd.Wait()
	l, err := OS().Lock(name)
	must(t, err)
	must(t, l.Close())
}

// TestCrashSectors: after a crash each sector of an unsynced write is old or
// new, in many mixtures, and synced bytes stay.
func TestCrashSectors(t *testing.T) {
	mixtures := make(map[string]bool)
	for seed := range uint64(500) {
		m := &Mem{}
		f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE)
		must(t, err)
		must(t, m.SyncDir("."))
		write(t, f, strings.Repeat("a", 4*SectorSize), 0)
		must(t, f.Sync())
		write(t, f, strings.Repeat("b", 3*SectorSize), SectorSize/2)
		write(t, f, strings.Repeat("c", SectorSize), 0)
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
			t.Fatal("a handle survived the crash")
		}
		b, err := m.ReadFile("f")
		must(t, err)
		if len(b) != 4*SectorSize {
			t.Fatalf("%d bytes", len(b))
		}
		var mix []byte
		for i := 0; i < len(b); i += SectorSize {
			s := b[i : i+SectorSize]
			half := bytes.Repeat(s[:1], SectorSize/2)
			if !bytes.Equal(s[:SectorSize/2], half) {
				t.Fatal("a sector was torn")
			}
			mix = append(mix, s[0], s[SectorSize-1])
		}
		// Sector 0 was written twice: old, with the first write, with both.
		if first := string(mix[:2]); first != "aa" && first != "ab" && first != "cc" {
			t.Fatalf("sector 0 is %q", first)
		}
		mixtures[string(mix)] = true
	}
	if len(mixtures) < 20 {
		t.Errorf("only %d mixtures", len(mixtures))
	}
}

// TestCrashNames: a name is there after a crash only if the directory was
// synced, or by chance; a rename is all or nothing.
func TestCrashNames(t *testing.T) {
	seen := make(map[string]int)
	for seed := range uint64(300) {
		m := &Mem{}
		for _, name := range []string{"keep", "old"} {
			f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE)
			must(t, err)
			write(t, f, name, 0)
			must(t, f.Sync())
		}
		must(t, m.SyncDir("."))
		must(t, m.Rename("old", "new"))
		_, err := m.OpenFile("late", os.O_RDWR|os.O_CREATE)
		must(t, err)
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		names, err := m.ReadDir(".")
		must(t, err)
		seen[strings.Join(names, " ")]++
	}
	for _, want := range []string{"keep old", "keep new", "keep late old", "keep late new"} {
		if seen[want] == 0 {
			t.Errorf("never %q in %v", want, seen)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("impossible: %v", seen)
	}
}

// TestFailedSync: bytes that a sync failed on are in the cache only, whatever
// a later sync says, until they are written again.
func TestFailedSync(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		fail := false
		m := &Mem{Hook: func(op Op) error {
			if fail && op.Kind == OpSync {
				return syscall.EIO
			}
			return nil
		}}
		f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE)
		must(t, err)
		must(t, m.SyncDir("."))
		must(t, f.Allocate(0, 2*SectorSize))
		must(t, f.Sync())
		write(t, f, strings.Repeat("x", 2*SectorSize), 0)
		fail = true
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		fail = false
		write(t, f, strings.Repeat("y", SectorSize), SectorSize)
		must(t, f.Sync())
		m.Kill()
		if _, err := f.Size(); !errors.Is(err, fs.ErrClosed) {
			t.Fatal("a handle survived its process")
		}
		if b, err := m.ReadFile("f"); err != nil || b[0] != 'x' {
			t.Fatal("the cache lost the bytes")
		}
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		b, err := m.ReadFile("f")
		must(t, err)
		if b[SectorSize] != 'y' {
			t.Fatal("lost what was written again and synced")
		}
		if b[0] == 0 {
			lost++
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("the bytes of the failed sync were lost %d times of 50", lost)
	}
}

func TestCapacity(t *testing.T) {
	m := &Mem{Capacity: 4 * pageSize}
	f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE)
	must(t, err)
	must(t, f.Allocate(0, 3*pageSize))
	g, err := m.OpenFile("g", os.O_RDWR|os.O_CREATE)
	must(t, err)
	if err := g.Allocate(0, 2*pageSize); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	write(t, g, "x", 0)
	if _, err := g.WriteAt([]byte("x"), pageSize); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	write(t, f, strings.Repeat("x", 3*pageSize), 0)
	must(t, m.Remove("f"))
	write(t, g, "x", pageSize)
	must(t, g.Truncate(0))
	must(t, g.Allocate(0, 4*pageSize))
}

// TestSparse: a segment that is allocated and zeroed takes no memory.
func TestSparse(t *testing.T) {
	m := &Mem{}
	f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE)
	must(t, err)
	must(t, f.Allocate(0, 64<<20))
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < 64<<20; off += int64(len(zeros)) {
		_, err := f.WriteAt(zeros, off)
		must(t, err)
	}
	must(t, f.Sync())
	for _, p := range m.dir(".").names["f"].pages {
		if p != nil {
			t.Fatal("zeros take a page")
		}
	}
}

// TestMemModel compares Mem with a plain slice of bytes over random calls, and
// what a crash leaves with what was durable.
func TestMemModel(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := &Mem{}
		f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE)
		must(t, err)
		must(t, m.SyncDir("."))
		var now, durable []byte
		for range 60 {
			off := rng.Int64N(3 * pageSize)
			switch rng.IntN(6) {
			case 0:
				must(t, f.Sync())
				durable = bytes.Clone(now)
			case 1:
				must(t, f.Truncate(off))
				now = append(now, make([]byte, max(0, off-int64(len(now))))...)[:off]
			default:
				b := make([]byte, rng.IntN(2000))
				if rng.IntN(3) > 0 {
					for i := range b {
						b[i] = byte(rng.Uint32())
					}
				}
				write(t, f, string(b), off)
				end := off + int64(len(b))
				now = append(now, make([]byte, max(0, end-int64(len(now))))...)
				copy(now[off:], b)
			}
			if content(t, f) != string(now) {
				t.Fatalf("seed %d: the bytes differ", seed)
			}
		}
		if rng.IntN(2) == 0 {
			must(t, f.Sync())
			durable = bytes.Clone(now)
		}
		m.Crash(rng)
		b, err := m.ReadFile("f")
		must(t, err)
		if string(now) == string(durable) && string(b) != string(now) {
			t.Fatalf("seed %d: a crash changed synced bytes", seed)
		}
	}
}
