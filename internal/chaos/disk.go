package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loopDisk is an ext4 file system on a loop device whose power can be cut.
type loopDisk struct {
	image, mount, device string
	mounted              bool
}

// diskBytes is the size of a member's disk.
const diskBytes = 1 << 30

func newLoopDisk(image, mount string) (_ *loopDisk, err error) {
	d := &loopDisk{image: image, mount: mount}
	defer func() {
		if err != nil {
			d.remove()
		}
	}()
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), os.MkdirAll(mount, 0o700)); err != nil {
		return nil, err
	}
	if _, err := command("mkfs.ext4", "-q", "-F", image); err != nil {
		return nil, err
	}
	if d.device, err = command("losetup", "--find", "--show", image); err != nil {
		return nil, fmt.Errorf("power cuts need root and loop devices: %w", err)
	}
	return d, d.restore()
}

func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return text, nil
}

// The ioctl that stops an ext4 file system, and its flag to do so without
// writing the journal out: what was not synced is lost, as by a power cut.
// Source: linux, fs/ext4/ext4.h.
const (
	ext4IOCShutdown          = 0x8004587d
	ext4GoingFlagsNoLogFlush = 2
)

// cut drops everything that was not synced. The file system then fails every
// operation until restore.
func (d *loopDisk) cut() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := uint32(ext4GoingFlagsNoLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ext4IOCShutdown, uintptr(unsafe.Pointer(&flags)))
	if errno != 0 {
		return fmt.Errorf("shut the file system down: %w", errno)
	}
	return nil
}

// restore mounts the file system again; its journal is replayed. While another
// mount namespace holds it (each "ip netns exec" copies all mounts), what is
// mounted is still the one whose power was cut: that is waited for.
func (d *loopDisk) restore() error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := d.remount()
		if !errors.Is(err, unix.EIO) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("another mount namespace holds the file system, which is shut down: %w", err)
		}
	}
}

func (d *loopDisk) remount() error {
	if d.mounted {
		if _, err := command("umount", d.mount); err != nil {
			return err
		}
		d.mounted = false
	}
	if _, err := command("mount", "-t", "ext4", d.device, d.mount); err != nil {
		return err
	}
	d.mounted = true
	probe, err := os.CreateTemp(d.mount, "probe")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// remove gives the device back; what is in the way at the end of a run is left.
func (d *loopDisk) remove() {
	if d.mounted {
		_, _ = command("umount", d.mount)
	}
	if d.device != "" {
		_, _ = command("losetup", "--detach", d.device)
	}
	_ = os.Remove(d.image)
}
