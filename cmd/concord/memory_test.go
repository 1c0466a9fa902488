package main

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// machineOf is the file system of a machine with 8 GiB, with more files.
func machineOf(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:        8388608 kB\nMemFree: 1 kB\n")}}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestMachineMemory(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"nothing":     {fstest.MapFS{}, 0},
		"no group":    {machineOf(nil), 8 * gib},
		"no limit":    {machineOf(map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}), 8 * gib},
		"v2":          {machineOf(map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2147483648\n"}), 2 * gib},
		"v2 high":     {machineOf(map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "2147483648\n", "sys/fs/cgroup/a/memory.high": "1073741824\n"}), gib},
		"v2 above":    {machineOf(map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2147483648\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}), gib},
		"v2 inside":   {machineOf(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"}), 2 * gib},
		"v1":          {machineOf(map[string]string{"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "2147483648\n"}), 2 * gib},
		"v1 host":     {machineOf(map[string]string{"proc/self/cgroup": "4:memory:/docker/12\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n"}), 2 * gib},
		"v1 no limit": {machineOf(map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}), 8 * gib},
		"nonsense":    {machineOf(map[string]string{"proc/self/cgroup": "x\n0::../..\n:memory\n", "sys/fs/cgroup/memory.max": "-5\n"}), 8 * gib},
	} {
		if got := machineMemory(c.root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestMemorySetting(t *testing.T) {
	root := machineOf(nil)
	for text, want := range map[string]int64{
		"75%": 6 << 30, "100%": 8 << 30, "0.1%": 64 << 20, "2GiB": 2 << 30, "67108864": 64 << 20,
		"off": 0, "0": 0, "": 0,
		"63MiB": -1, "0%": -1, "101%": -1, "-1%": -1, "NaN%": -1, "much": -1, "-1": -1, "75 %x": -1,
	} {
		l := limitSettings{Memory: text}
		err := l.checkMemory(root)
		if want < 0 {
			if err == nil || !strings.Contains(err.Error(), "--memory-limit") {
				t.Errorf("%q: %v", text, err)
			}
		} else if err != nil || l.memory != want {
			t.Errorf("%q: %d, %v; want %d", text, l.memory, err, want)
		}
	}
	l := limitSettings{Memory: "75%"}
	if err := l.checkMemory(fstest.MapFS{}); err != nil || l.memory != 0 {
		t.Errorf("where nothing says how much there is: %d, %v", l.memory, err)
	}
}

func TestHeapShare(t *testing.T) {
	for _, c := range []struct{ limit, state, want int64 }{
		{800, 0, 800}, {800, 100, 700}, {800, 700, 100}, {800, 900, 100},
	} {
		if got := heapShare(c.limit, c.state) - garbageBeforeCollection; got != c.want {
			t.Errorf("of %d with a state of %d the heap has %d, want %d", c.limit, c.state, got, c.want)
		}
	}
}

func TestRateSetting(t *testing.T) {
	for text, want := range map[string]struct {
		rate  float64
		burst int
	}{
		"": {}, "0": {}, "off": {}, "1000": {1000, 1000}, "0.5": {0.5, 1}, "10/500": {10, 500}, "1000000000/1000000000": {1e9, 1e9},
		"-1": {-1, 0}, "x": {-1, 0}, "1/": {-1, 0}, "1/0": {-1, 0}, "/5": {-1, 0}, "NaN": {-1, 0}, "1e10": {-1, 0}, "1/2/3": {-1, 0},
	} {
		l := limitSettings{Rate: text}
		err := l.checkRate()
		if want.rate < 0 {
			if err == nil || !strings.Contains(err.Error(), "--rate-limit") {
				t.Errorf("%q: %v", text, err)
			}
		} else if err != nil || l.rate != want.rate || l.burst != want.burst {
			t.Errorf("%q: %v at once %d, %v", text, l.rate, l.burst, err)
		}
	}
	for _, l := range []limitSettings{{Connections: -1}, {PerAddress: -1}, {Streams: -1}, {Watches: -1}, {SlowReader: time.Millisecond}} {
		if l.check() == nil {
			t.Errorf("%+v is allowed", l)
		}
	}
}
