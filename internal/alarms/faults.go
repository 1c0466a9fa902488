package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// fault is one thing that goes wrong, and what is to be told of it.
type fault struct {
	what       string
	hurt, heal func(context.Context) error
	alerts     []alert
	// page is a line of /readyz?verbose of the member by; where it begins with
	// [-] that member has to be unready, else ready.
	by   *member
	page string
	// asked is the member that is asked for the status and by top, which have
	// to say this.
	asked *member
	says  string
}

// alert is one that has to fire, with these labels.
type alert struct {
	name   string
	labels map[string]string
}

func at(m *member) map[string]string { return map[string]string{"instance": m.name} }

func of(m *member) map[string]string { return map[string]string{"peer": m.name} }

// faults make them for the cluster as it is.
var faults = map[string]func(*cluster, context.Context) (*fault, error){
	"kill":     (*cluster).killed,
	"majority": (*cluster).majority,
	"cut":      (*cluster).cut,
	"memory":   (*cluster).filled,
	"slow":     (*cluster).slow,
	"stall":    (*cluster).stalled,
}

func faultNames() []string { return slices.Sorted(maps.Keys(faults)) }

// others are all members but one.
func (c *cluster) others(m *member) []*member {
	return slices.DeleteFunc(slices.Clone(c.members), func(o *member) bool { return o == m })
}

// killed: one that is not there has no page; the others stay ready.
func (c *cluster) killed(ctx context.Context) (*fault, error) {
	leader, err := c.leader(ctx)
	if err != nil {
		return nil, err
	}
	others := c.others(leader)
	return &fault{
		what:   "kill -9 of the leader, " + leader.name,
		hurt:   func(context.Context) error { leader.kill(); return nil },
		heal:   func(context.Context) error { return leader.start() },
		alerts: []alert{{"ConcordMemberDown", of(leader)}, {"ConcordMajorityAtRisk", nil}},
		by:     others[0], page: "[+]leader ok",
		asked: others[1], says: "2 of 3 voters, survives 0 failures: " + leader.name + " ",
	}, nil
}

func (c *cluster) majority(ctx context.Context) (*fault, error) {
	leader, err := c.leader(ctx)
	if err != nil {
		return nil, err
	}
	others := c.others(leader)
	return &fault{
		what:   fmt.Sprintf("kill -9 of the leader, %s, and of %s", leader.name, others[0].name),
		hurt:   func(context.Context) error { leader.kill(); others[0].kill(); return nil },
		heal:   func(context.Context) error { return errors.Join(leader.start(), others[0].start()) },
		alerts: []alert{{"ConcordNoLeader", nil}},
		by:     others[1], page: "[-]leader failed: no leader for ",
		asked: others[1], says: "no majority: 1 of 3 voters answers and 2 are needed: ",
	}, nil
}

func (c *cluster) cut(ctx context.Context) (*fault, error) {
	victim := c.members[1]
	if err := c.follower(ctx, victim); err != nil {
		return nil, err
	}
	return &fault{
		what:   victim.name + " is cut off from the others",
		hurt:   func(context.Context) error { return c.part(victim, "add") },
		heal:   func(context.Context) error { return c.part(victim, "del") },
		alerts: []alert{{"ConcordMemberWithoutLeader", at(victim)}, {"ConcordMemberDown", of(victim)}},
		by:     victim, page: "[-]leader failed: no leader for ",
		asked: c.members[0], says: "2 of 3 voters, survives 0 failures: " + victim.name + " ",
	}, nil
}

// fillBytes is the size of the values that fill memory.
const fillBytes = 256 << 10

func (c *cluster) filled(context.Context) (*fault, error) {
	m := c.members[0]
	return &fault{
		what: "values of 256 KiB until the memory limit of " + memoryLimit + " is reached",
		hurt: func(ctx context.Context) error {
			value := make([]byte, fillBytes)
			for i := range 10_000 {
				switch _, err := kv.Put(ctx, c.client, fmt.Sprintf("fill/%05d", i), value); {
				case errors.Is(err, kv.ErrNoMemory):
					fmt.Printf("  %d values were taken, then: %v\n", i, err)
					return nil
				case err != nil && kv.CodeOf(err) != kv.Unavailable:
					return err
				}
			}
			return errors.New("the memory limit was not reached")
		},
		heal: func(ctx context.Context) error {
			return within(ctx, func(ctx context.Context) error {
				_, err := kv.DeleteRange(ctx, c.client, kv.Op{Key: []byte("fill/"), End: []byte("fill0")})
				return err
			})
		},
		alerts: []alert{{"ConcordMemoryFull", nil}},
		by:     m, page: "[!]memory ok, but: ",
		asked: m, says: ", and writes that make the state larger are refused; delete keys, or give it more memory",
	}, nil
}

// writesPerSecond is how often the slow disk may be written to.
const writesPerSecond = 4

func (c *cluster) slow(ctx context.Context) (*fault, error) {
	victim := c.members[size-1]
	if err := c.follower(ctx, victim); err != nil {
		return nil, err
	}
	return &fault{
		what:   fmt.Sprintf("the disk of %s takes %d writes a second", victim.name, writesPerSecond),
		hurt:   func(context.Context) error { return c.disk.throttle(writesPerSecond, victim) },
		heal:   func(context.Context) error { return c.disk.throttle(0, nil) },
		alerts: []alert{{"ConcordDiskSlow", at(victim)}},
		by:     victim, page: "[!]disk_latency ok, but: the disk is slow: ",
		asked: c.members[0], says: victim.name + ": the disk is slow: one write of the log in ten takes longer than ",
	}, nil
}

func (c *cluster) stalled(ctx context.Context) (*fault, error) {
	victim := c.members[size-1]
	if err := c.follower(ctx, victim); err != nil {
		return nil, err
	}
	return &fault{
		what:   "the disk of " + victim.name + " finishes no write",
		hurt:   func(context.Context) error { return c.disk.freeze() },
		heal:   func(context.Context) error { return c.disk.thaw() },
		alerts: []alert{{"ConcordDiskStalled", at(victim)}},
		by:     victim, page: "[-]disk_writes failed: the disk has not finished a write for more than ",
		asked: c.members[0], says: "the disk of " + victim.name + " does not finish its writes",
	}, nil
}
