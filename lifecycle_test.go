package concord

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	heap, resident          int64
}

func measure(t *testing.T) usage {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory() // also what finalizers of the first one set free
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{goroutines: runtime.NumGoroutine(), heap: int64(m.HeapAlloc)}
	if runtime.GOOS != "linux" {
		return u
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors = len(open)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		t.Fatal(err)
	}
	u.resident = resident * int64(os.Getpagesize())
	return u
}

// settled measures again while more goroutines or descriptors are there than
// before: the last one to end may have said so already and still be leaving.
func settled(t *testing.T, before usage) usage {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		u := measure(t)
		if u.goroutines <= before.goroutines && u.descriptors <= before.descriptors || time.Now().After(deadline) {
			return u
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A thousand times Open, a put and Close leave nothing behind. The disk is in
// memory, so that only the member itself counts; TestReopenOnDisk has the rest.
func TestThousandCyclesLeakNothing(t *testing.T) {
	cycles, warm := 1000, 100
	if underRace {
		cycles, warm = 100, 20
	}
	files := new(vfs.Mem)
	var before usage
	for i := range cycles {
		if i == warm {
			before = measure(t)
		}
		n, err := Open(t.Context(), "data", withFS(files), SnapshotEvery(16<<10))
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		put, err := n.Put(t.Context(), "cycle", fmt.Sprint(i))
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if want := kv.Revision(i + 2); put.Revision != want {
			t.Fatalf("cycle %d: put at revision %d, want %d", i, put.Revision, want)
		}
		if err := n.Close(); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
	}
	after := settled(t, before)
	t.Logf("after %d cycles: %+v; after %d: %+v", warm, before, cycles, after)
	if after.goroutines > before.goroutines {
		t.Errorf("%d goroutines, %d before", after.goroutines, before.goroutines)
	}
	if after.descriptors > before.descriptors {
		t.Errorf("%d descriptors, %d before", after.descriptors, before.descriptors)
	}
	const slack = 8 << 20
	if after.heap > before.heap+slack {
		t.Errorf("%d bytes of heap, %d before", after.heap, before.heap)
	}
	if after.resident > before.resident+4*slack {
		t.Errorf("%d bytes resident, %d before", after.resident, before.resident)
	}
}

// Reopening on a disk leaves no descriptor open, and the directory stays small.
func TestReopenOnDisk(t *testing.T) {
	const cycles, warm = 30, 5
	dir := t.TempDir()
	var before usage
	for i := range cycles {
		if i == warm {
			before = measure(t)
		}
		n, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if _, err := n.Put(t.Context(), "cycle", fmt.Sprint(i)); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		if err := n.Close(); err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
	}
	if after := settled(t, before); after.descriptors > before.descriptors || after.goroutines > before.goroutines {
		t.Errorf("after %d cycles %+v, after %d %+v", warm, before, cycles, after)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	if err != nil || len(segments) > 3 {
		t.Errorf("%d log files after %d cycles, %v", len(segments), cycles, err)
	}
}

// An empty directory serves its first put at once. The bound is loose, and met
// once in many tries, because machines that run tests are busy; the aim is 100 ms.
func TestFirstPutOfAnEmptyDirectory(t *testing.T) {
	best := time.Hour
	tries := 0
	for ; tries < 5 || tries < 50 && best > time.Second; tries++ {
		dir := filepath.Join(t.TempDir(), "data")
		began := time.Now()
		n, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(t.Context(), "greeting", "hello"); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(began))
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the first put was served after %v, the best of %d", best, tries)
	if best > time.Second {
		t.Errorf("the first put was served after %v, the best of %d", best, tries)
	}
}

// A disk that fails a sync ends the member, not the program: Done is closed, Err
// says why, calls get an error, and what was acknowledged is there after the
// disk was mended. It is tried at every sync of the run.
func TestBrokenDiskEndsTheMember(t *testing.T) {
	for after := range 12 {
		t.Run(fmt.Sprint(after), func(t *testing.T) { breakDisk(t, after) })
	}
}

func breakDisk(t *testing.T, after int) {
	broken := errors.New("the disk is broken")
	var armed atomic.Bool
	var left atomic.Int64
	left.Store(int64(after))
	files := &vfs.Mem{Hook: func(op vfs.Op) error {
		if armed.Load() && op.Kind == vfs.OpSync && left.Add(-1) < 0 {
			return broken
		}
		return nil
	}}
	n, err := Open(t.Context(), "data", withFS(files))
	if err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	acked := -1
	for i := 0; ; i++ {
		_, err := n.Put(t.Context(), "k", fmt.Sprint(i))
		if err != nil {
			if kv.CodeOf(err) != kv.Unavailable {
				t.Errorf("put %d on a broken disk: code %v, %v", i, kv.CodeOf(err), err)
			}
			break
		}
		acked = i
	}
	select {
	case <-n.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the member goes on")
	}
	if err := n.Err(); !errors.Is(err, broken) {
		t.Errorf("Err is %v", err)
	}
	if err := n.Ready(t.Context()); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("Ready after the end: %v", err)
	}
	if _, err := n.Get(t.Context(), "k", kv.Strong); kv.CodeOf(err) != kv.Unavailable {
		t.Errorf("get after the end: %v", err)
	}
	_ = n.Close() // it may fail, as the disk does
	armed.Store(false)
	n = open(t, "data", withFS(files))
	got, err := n.Get(t.Context(), "k", kv.Strong)
	if acked < 0 && errors.Is(err, kv.ErrKeyNotFound) {
		return
	}
	value := -1
	if err == nil {
		_, err = fmt.Sscan(string(got.Value), &value)
	}
	if err != nil || value < acked || value > acked+1 {
		t.Errorf("put %d was acknowledged, and after the repair there is %d, %v", acked, value, err)
	}
}

// What a file system says of a directory comes with the next step.
func TestRefusedDirectories(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fs.ErrPermission, "the right to write"},
		{syscall.EROFS, "the right to write"},
		{syscall.ENOTDIR, "a file is in the way"},
		{syscall.ENOSPC, "free some"},
	} {
		files := &vfs.Mem{Hook: func(vfs.Op) error { return c.err }}
		n, err := Open(t.Context(), "data", withFS(files))
		if err == nil {
			t.Errorf("%v: a member is opened", c.err)
			_ = n.Close()
			continue
		}
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "data") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	peers := map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
	for _, c := range []struct {
		opt  Option
		want string
	}{
		{Timing(time.Second, 2*time.Second), "raise it"},
		{Timing(time.Microsecond, time.Second), "heartbeat"},
		{Limits(kv.Limits{KeyBytes: 1 << 20}), "1 to 65536"},
		{Limits(kv.Limits{Depth: 1 << 20}), "nesting"},
		{Rejoin(), "backup restore"},
		{Peers("127.0.0.1:1", map[string]string{"n2": "127.0.0.1:2"}), "not among its peers"},
		{Peers("127.0.0.1:1", map[string]string{"n1": "nonsense"}), "HOST:PORT"},
		{Peers("127.0.0.1:1", map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:1"}), "one address"},
		{Peers("", peers), "peer address"},
	} {
		n, err := Open(t.Context(), t.TempDir(), c.opt)
		if err == nil {
			t.Errorf("a member is opened that should be refused for %q", c.want)
			_ = n.Close()
			continue
		}
		if kv.CodeOf(err) != kv.InvalidArgument || !strings.Contains(err.Error(), c.want) {
			t.Errorf("code %v, %v; want %q", kv.CodeOf(err), err, c.want)
		}
	}
	if _, err := Open(t.Context(), ""); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("without a directory: %v", err)
	}
}
