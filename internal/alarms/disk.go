package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// disk is an ext4 file system on a loop device that can be slow, or stand still.
type disk struct {
	image, mount, device, group string
	number                      string // of the device: major and minor
	mounted, frozen             bool
}

// diskBytes is its size: enough for ConcordDiskFilling to stay silent. It is
// sparse.
const diskBytes = 3 << 30

// blkio is where the controller of cgroups version 1 is.
const blkio = "/sys/fs/cgroup/blkio"

func newDisk(dir string) (d *disk, err error) {
	d = &disk{image: filepath.Join(dir, "disk.img"), mount: filepath.Join(dir, "disk"), group: filepath.Join(blkio, fmt.Sprintf("concord-alarms-%d", os.Getpid()))}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove())
			d = nil
		}
	}()
	f, err := os.Create(d.image)
	if err != nil {
		return d, err
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), os.MkdirAll(d.mount, 0o700), os.Mkdir(d.group, 0o700)); err != nil {
		return d, err
	}
	if _, err := command("mkfs.ext4", "-q", "-F", d.image); err != nil {
		return d, err
	}
	if d.device, err = command("losetup", "--find", "--show", d.image); err != nil {
		return d, err
	}
	if _, err := command("mount", d.device, d.mount); err != nil {
		return d, err
	}
	d.mounted = true
	d.number, err = command("lsblk", "--nodeps", "--noheadings", "--raw", "--output", "MAJ:MIN", d.device)
	return d, err
}

// throttle lets the process write to the disk so many times a second; 0 is as
// often as it likes. A write that is synced is some two or three of them.
func (d *disk) throttle(writes int, m *member) error {
	if m != nil && m.cmd != nil {
		if err := os.WriteFile(filepath.Join(d.group, "cgroup.procs"), []byte(strconv.Itoa(m.cmd.Process.Pid)), 0); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(d.group, "blkio.throttle.write_iops_device"), fmt.Appendf(nil, "%s %d", d.number, writes), 0)
}

// freeze has writes wait until thaw.
func (d *disk) freeze() error {
	_, err := command("fsfreeze", "--freeze", d.mount)
	d.frozen = err == nil
	return err
}

func (d *disk) thaw() error {
	if !d.frozen {
		return nil
	}
	d.frozen = false
	_, err := command("fsfreeze", "--unfreeze", d.mount)
	return err
}

// remove gives the device back.
func (d *disk) remove() error {
	var errs []error
	if d.mounted {
		_, err := command("umount", d.mount)
		errs = append(errs, err)
	}
	if d.device != "" {
		_, err := command("losetup", "--detach", d.device)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.Remove(d.group), os.Remove(d.image))...)
}
