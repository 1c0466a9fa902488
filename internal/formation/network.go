package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// network is a namespace for each process and one, the hub, with as many bridges
// as there may be islands. A process is on an island by being plugged into its
// bridge.
type network struct {
	hub    string
	spaces []string
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func bridge(island int) string { return fmt.Sprintf("br%d", island) }

func plug(process int) string { return fmt.Sprintf("p%d", process) }

// newNetwork connects all processes.
func newNetwork(processes, islands int) (n *network, err error) {
	n = &network{hub: fmt.Sprintf("concord-%d-hub", os.Getpid())}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := ip("netns", "add", n.hub); err != nil {
		return n, err
	}
	for i := range islands {
		if err := ip("-n", n.hub, "link", "add", bridge(i), "type", "bridge", "mcast_snooping", "0"); err != nil {
			return n, err
		}
		if err := ip("-n", n.hub, "link", "set", bridge(i), "up"); err != nil {
			return n, err
		}
	}
	for i := range processes {
		space := fmt.Sprintf("concord-%d-%d", os.Getpid(), i)
		if err := ip("netns", "add", space); err != nil {
			return n, err
		}
		n.spaces = append(n.spaces, space)
		for _, args := range [][]string{
			{"-n", space, "link", "set", "lo", "up"},
			{"-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", plug(i), "netns", n.hub},
			{"-n", n.hub, "link", "set", plug(i), "master", bridge(0), "up"},
			{"-n", space, "link", "set", "eth0", "up"},
		} {
			if err := ip(args...); err != nil {
				return n, err
			}
		}
	}
	return n, n.number(0)
}

// number gives every process an address in the given network of 10/8.
func (n *network) number(network int) error {
	for i, space := range n.spaces {
		if err := ip("-n", space, "addr", "flush", "dev", "eth0", "scope", "global"); err != nil {
			return err
		}
		if err := ip("-n", space, "addr", "add", fmt.Sprintf("10.77.%d.%d/24", network, 10+i), "dev", "eth0"); err != nil {
			return err
		}
	}
	return nil
}

// settle puts a process on an island.
func (n *network) settle(process, island int) error {
	return ip("-n", n.hub, "link", "set", plug(process), "master", bridge(island))
}

func (n *network) close() {
	for _, space := range append(n.spaces, n.hub) {
		_ = ip("netns", "delete", space) // with all that is in it
	}
}
