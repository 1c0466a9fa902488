package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds what must happen in the end. It says nothing of how long that
// takes where nothing else runs.
const patience = 2 * time.Minute

// islands is into how many parts the network may fall.
const islands = 3

// round is the life of one cluster.
type round struct {
	plan
	rng *rand.Rand
	dir string

	net     *network
	running []*exec.Cmd // nil: does not run
	cluster string      // as the first that knew it said
	faults  string
}

// times is how long things took.
type times struct{ formed, healed, moved time.Duration }

func (r *round) run(ctx context.Context) (took times, err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return took, err
	}
	secret, err := exec.CommandContext(ctx, r.binary, "secret").Output()
	if err != nil {
		return took, fmt.Errorf("make a secret: %w", err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "secret"), secret, 0o600); err != nil {
		return took, err
	}
	if r.net, err = newNetwork(r.processes, islands); err != nil {
		return took, err
	}
	defer r.net.close()
	r.running = make([]*exec.Cmd, r.processes)
	defer func() {
		for i := range r.running {
			r.end(i, syscall.SIGKILL)
		}
	}()
	form := r.form
	if r.expect == 1 {
		form = r.follow
	}
	if took.formed, err = form(ctx); err != nil {
		return took, fmt.Errorf("form: %w", err)
	}
	if took.healed, err = r.loseDisk(ctx); err != nil {
		return took, fmt.Errorf("after a disk was lost: %w", err)
	}
	if took.moved, err = r.move(ctx); err != nil {
		return took, fmt.Errorf("after all addresses have changed: %w", err)
	}
	return took, nil
}

func (r *round) data(i int) string { return filepath.Join(r.dir, fmt.Sprintf("n%d", i+1)) }

func (r *round) start(i int) error {
	log, err := os.OpenFile(r.data(i)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("ip", "netns", "exec", r.net.spaces[i], r.binary, "serve",
		"--cluster", "demo", "--secret-file", filepath.Join(r.dir, "secret"),
		"--name", fmt.Sprintf("n%d", i+1), "--data-dir", r.data(i), "--expect", fmt.Sprint(r.expect))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.running[i] = cmd
	return cmd.Start()
}

// end ends a process; ip executes it in its own place, so that it gets the signal.
func (r *round) end(i int, how syscall.Signal) {
	if r.running[i] != nil {
		_ = r.running[i].Process.Signal(how) // it may have ended by itself
		_ = r.running[i].Wait()              // its end is what was asked for
		r.running[i] = nil
	}
}

// ask runs the program beside process i, against it.
func (r *round) ask(ctx context.Context, i int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", r.net.spaces[i], r.binary}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s at n%d: %w: %s", strings.Join(args, " "), i+1, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// one fails when the data directories know of more than one cluster.
func (r *round) one() (members int, err error) {
	for i := range r.processes {
		data, err := os.ReadFile(filepath.Join(r.data(i), "member.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var file struct{ Cluster string }
		if err := errors.Join(err, json.Unmarshal(data, &file)); err != nil {
			return 0, err
		}
		switch {
		case file.Cluster == "" || file.Cluster == "0":
			continue
		case r.cluster == "":
			r.cluster = file.Cluster
		case r.cluster != file.Cluster:
			return 0, fmt.Errorf("n%d is of cluster %s, another of %s", i+1, file.Cluster, r.cluster)
		}
		members++
	}
	return members, nil
}

// form starts all processes while the network falls apart and processes are
// killed, and waits for one cluster that serves on all of them.
func (r *round) form(ctx context.Context) (time.Duration, error) {
	delays := make([]time.Duration, r.processes)
	for i := range delays {
		delays[i] = time.Duration(r.rng.IntN(3000)) * time.Millisecond
	}
	began, cuts, kills := time.Now(), 0, 0
	lasts := time.Duration(2000+r.rng.IntN(4000)) * time.Millisecond
	for time.Since(began) < lasts {
		for i, delay := range delays {
			if r.running[i] == nil && time.Since(began) >= delay {
				if err := r.start(i); err != nil {
					return 0, err
				}
			}
		}
		switch victim := r.rng.IntN(r.processes); {
		case r.rng.IntN(3) > 0:
			if err := r.net.settle(victim, r.rng.IntN(islands)); err != nil {
				return 0, err
			}
			cuts++
		case r.running[victim] != nil:
			r.end(victim, syscall.SIGKILL)
			delays[victim] = time.Since(began) + time.Duration(r.rng.IntN(1000))*time.Millisecond
			kills++
		}
		if _, err := r.one(); err != nil {
			return 0, err
		}
		if err := pause(ctx, time.Duration(r.rng.IntN(300))*time.Millisecond); err != nil {
			return 0, err
		}
	}
	r.faults = fmt.Sprintf("%d cuts and %d kills in %v", cuts, kills, lasts)
	for i := range r.processes {
		if err := r.net.settle(i, 0); err != nil {
			return 0, err
		}
		if r.running[i] == nil {
			if err := r.start(i); err != nil {
				return 0, err
			}
		}
	}
	healed := time.Now()
	if err := r.serves(ctx, "formed"); err != nil {
		return 0, err
	}
	return time.Since(healed).Round(time.Millisecond), nil
}

// follow starts one process, writes to it as soon as it serves, and starts the
// others meanwhile. It returns how long the last of them took to serve.
func (r *round) follow(ctx context.Context) (time.Duration, error) {
	order := r.rng.Perm(r.processes)
	wrote := make(chan error, 1)
	began := time.Now()
	for n, i := range order {
		if err := r.start(i); err != nil {
			return 0, err
		}
		if n == 0 {
			go func() {
				wrote <- r.within(ctx, func() error { _, err := r.ask(ctx, i, "put", "early", "x"); return err })
			}()
		}
		r.faults += fmt.Sprintf("n%d at %v ", i+1, time.Since(began).Round(time.Millisecond))
		if n < len(order)-1 && r.rng.IntN(3) > 0 {
			if err := pause(ctx, time.Duration(r.rng.IntN(6000))*time.Millisecond); err != nil {
				return 0, err
			}
		}
	}
	last := time.Now()
	if err := <-wrote; err != nil {
		return 0, err
	}
	if err := r.serves(ctx, "formed"); err != nil {
		return 0, err
	}
	took := time.Since(last).Round(time.Millisecond)
	for i := range r.processes {
		if _, err := r.ask(ctx, i, "get", "early"); err != nil {
			return took, err
		}
	}
	return took, nil
}

// serves waits until every process is a member of the one cluster, writes and
// reads what the others have written.
func (r *round) serves(ctx context.Context, key string) error {
	err := r.within(ctx, func() error {
		members, err := r.one()
		if err == nil && members < r.processes {
			err = fmt.Errorf("%d of %d belong to the cluster", members, r.processes)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range r.processes {
		if err := r.within(ctx, func() error { _, err := r.ask(ctx, i, "put", fmt.Sprintf("%s-%d", key, i), "x"); return err }); err != nil {
			return err
		}
	}
	for i := range r.processes {
		for j := range r.processes {
			if _, err := r.ask(ctx, i, "get", fmt.Sprintf("%s-%d", key, j)); err != nil {
				return err
			}
		}
	}
	return nil
}

// loseDisk kills a process, takes its disk, and waits until it has come back and
// the cluster is as strong as before.
func (r *round) loseDisk(ctx context.Context) (time.Duration, error) {
	victim, witness := r.rng.IntN(r.processes), 0
	if victim == witness {
		witness = 1
	}
	full := r.full()
	strong := func() error {
		now, err := r.strength(ctx, witness)
		if err == nil && now != full {
			err = fmt.Errorf("the cluster should be %q, and is %q", full, now)
		}
		return err
	}
	if err := r.within(ctx, strong); err != nil {
		return 0, err
	}
	old, err := r.id(victim)
	if err != nil {
		return 0, err
	}
	r.end(victim, syscall.SIGKILL)
	if err := os.RemoveAll(r.data(victim)); err != nil {
		return 0, err
	}
	if err := pause(ctx, time.Duration(r.rng.IntN(2000))*time.Millisecond); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := r.start(victim); err != nil {
		return 0, err
	}
	err = r.within(ctx, func() error {
		if err := strong(); err != nil {
			return err
		}
		members, err := r.ask(ctx, witness, "cluster", "members", "-o", "value")
		if err == nil && (strings.Contains(members, old) || len(strings.Fields(members)) != r.processes) {
			err = fmt.Errorf("%s has gone, and the members are %q", old, members)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(began).Round(time.Millisecond)
	return took, r.serves(ctx, "healed")
}

// id is who process i is, as commands print it.
func (r *round) id(i int) (string, error) {
	data, err := os.ReadFile(filepath.Join(r.data(i), "member.json"))
	var file struct {
		ID uint64 `json:"id,string"`
	}
	err = errors.Join(err, json.Unmarshal(data, &file))
	return fmt.Sprintf("%x", file.ID), err
}

// full is what the cluster's status says when all votes are given that are wanted.
func (r *round) full() string {
	switch {
	case r.processes < 3:
		return "1 of 1 voters, survives 0 failures"
	case r.expect < 5:
		return "3 of 3 voters, survives 1 failure"
	}
	return "5 of 5 voters, survives 2 failures"
}

// strength is the first line of the cluster's status.
func (r *round) strength(ctx context.Context, i int) (string, error) {
	out, err := r.ask(ctx, i, "cluster", "status")
	line, _, _ := strings.Cut(out, "\n")
	return line, err
}

// move stops all processes and starts them at other addresses.
func (r *round) move(ctx context.Context) (time.Duration, error) {
	for i := range r.running {
		r.end(i, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[r.rng.IntN(2)])
	}
	if err := r.net.number(1); err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range r.running {
		if err := r.start(i); err != nil {
			return 0, err
		}
	}
	if err := r.within(ctx, func() error { _, err := r.ask(ctx, 0, "put", "moved", "x"); return err }); err != nil {
		return 0, err
	}
	took := time.Since(began).Round(time.Millisecond)
	if _, err := r.ask(ctx, 1, "get", "formed-0"); err != nil {
		return took, err
	}
	return took, r.serves(ctx, "again")
}

// pause waits, less when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// within repeats try until it succeeds, a process has ended by itself, or
// patience is over; then the last error counts. Two clusters end it at once.
func (r *round) within(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if _, two := r.one(); two != nil {
			return two
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
