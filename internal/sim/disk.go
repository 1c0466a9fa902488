package sim

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
)

// diskOptions are the disks of one run.
type diskOptions struct {
	write time.Duration // mean time of a write with its sync
	slow  float64       // chance that one takes a hundred times as long
}

// What a disk answers when it fails.
var (
	errPower = errors.New("the power is off")
	errIO    = fmt.Errorf("injected: %w", syscall.EIO)
	errFull  = fmt.Errorf("injected: %w", syscall.ENOSPC)
)

// disk is a node's, with all that can go wrong with it. It outlives processes.
type disk struct {
	n   *node
	fs  vfs.FS // what processes see: mem, or a bug's wrapping of it
	mem *vfs.Mem

	// powerIn and errorIn count down the changes of the disk until the power
	// fails or err is answered, once; 0 is never.
	powerIn, errorIn int
	err              error

	dead    bool  // the power has failed, and the process does not know yet
	erred   bool  // an error was answered since the last crash
	damaged bool  // bits were flipped
	full    int64 // no new blocks until then
	stalled int64 // nothing finishes until then
	crawls  int64 // writes take a good part of an election timeout until then, though no two take a whole one
	changes uint64
}

func newDisk(n *node) *disk {
	d := &disk{n: n, mem: &vfs.Mem{}}
	d.mem.Hook = d.hook
	d.fs = d.mem
	if bug := n.w.bug(); bug.Disk != nil {
		d.fs = bug.Disk(d.mem)
	}
	return d
}

// hook decides what becomes of an operation.
func (d *disk) hook(op vfs.Op) error {
	if d.dead {
		return errPower
	}
	switch op.Kind {
	case vfs.OpRead, vfs.OpReadDir, vfs.OpLock, vfs.OpMkdir, vfs.OpOpen:
		return nil
	}
	d.changes++
	d.n.w.trace.mix(uint64(op.Kind), uint64(op.Off), uint64(op.Len))
	if d.powerIn > 0 {
		if d.powerIn--; d.powerIn == 0 {
			d.dead = true
			if op.Kind == vfs.OpWrite {
				return &vfs.ShortWrite{N: d.n.w.chaos.IntN(int(op.Len) + 1), Err: errPower}
			}
			return errPower
		}
	}
	if d.errorIn > 0 {
		if d.errorIn--; d.errorIn == 0 {
			d.erred = true
			return d.err
		}
	}
	if d.full > d.n.w.loop.now && (op.Kind == vfs.OpAllocate || op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, "snap")) {
		return errFull
	}
	return nil
}

func (d *disk) armPower(in int) { d.powerIn = in }

func (d *disk) armError(in int, err error) { d.errorIn, d.err = in, err }

// fill leaves the disk without free blocks until a time.
func (d *disk) fill(until int64) { d.full = max(d.full, until) }

// latency draws how long a write with its sync takes from now.
func (d *disk) latency() time.Duration {
	w := d.n.w
	t := 20*time.Microsecond + w.rnd.exp(w.opt.disk.write)
	if !w.healed && w.rnd.is(w.opt.disk.slow) {
		t *= 100
	}
	if d.crawls > w.loop.now {
		t += w.rnd.between(w.opt.election*2/10, w.opt.election*9/20)
	}
	if wait := d.stalled - w.loop.now; wait > 0 {
		t += time.Duration(wait)
	}
	return t
}

// crash does to the bytes what the end of the process did.
func (d *disk) crash(kind crashKind, rnd chance) {
	if kind == crashPower || d.dead {
		d.mem.Crash(rnd.Rand)
	} else {
		d.mem.Kill()
	}
	d.powerIn, d.errorIn, d.dead = 0, 0, false
}

// boot forgets the errors of the last life.
func (d *disk) boot() { d.erred = false }

func (d *disk) failed() bool { return d.erred || d.full > d.n.w.loop.now }

// heal ends all harm to come; damage done stays.
func (d *disk) heal(now int64) {
	d.powerIn, d.errorIn, d.full, d.stalled = 0, 0, min(d.full, now), min(d.stalled, now)
	d.crawls = min(d.crawls, now)
}

// flip inverts one bit of a file whose name starts with dir.
func (d *disk) flip(dir string, rnd chance) (where string, ok bool) {
	names, err := d.mem.ReadDir(dir)
	if err != nil || len(names) == 0 {
		return "", false
	}
	name := dir + "/" + names[rnd.IntN(len(names))]
	data, err := d.mem.ReadFile(name)
	if err != nil || len(data) == 0 {
		return "", false
	}
	used := len(data)
	for used > 0 && data[used-1] == 0 {
		used-- // the zeros ahead of the log are nobody's data
	}
	if used == 0 {
		return "", false
	}
	off := int64(rnd.IntN(used))
	if err := d.mem.Flip(name, off, 1<<rnd.IntN(8)); err != nil {
		return "", false
	}
	return fmt.Sprintf("%s byte %d of %d", name, off, used), true
}
